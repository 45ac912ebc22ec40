"""A checked request for answers, and several of them in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.outputs import Array

#: One row of a request: the tokens of a text, or what an encoder reads instead (``input_features``), without the batch.
Prompt = Sequence[int] | Array


@dataclass(frozen=True)
class GenerationRequest:
    """Prompts that `Session.check_prompts` checked.

    Attributes:
        prompts: each row's token ids, or its array.
        lengths: how long each row's answer may get.
        task_ids: int64 [rows], -1 to infer; None where the model has no input ``task_id``.
        settings: of all rows; ``max_new_tokens`` is the greatest of the lengths.
    """

    prompts: Sequence[Prompt]
    lengths: Sequence[int]
    task_ids: Array | None
    settings: GenerationSettings


def join(requests: Sequence[GenerationRequest]) -> GenerationRequest:
    """One batch of the rows of all requests, in this order.

    Args:
        requests: of one bundle; their settings differ in ``max_new_tokens`` at most. A decoder reads prompt and answer
            in one context, into which the longest prompt and the longest answer together must fit.
    """
    lengths = [length for request in requests for length in request.lengths]
    ids = [request.task_ids for request in requests if request.task_ids is not None]
    return GenerationRequest(
        prompts=[prompt for request in requests for prompt in request.prompts],
        lengths=lengths,
        task_ids=np.concatenate(ids) if ids else None,
        settings=replace(requests[0].settings, max_new_tokens=max(lengths)),
    )

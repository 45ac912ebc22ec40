"""Where the batches of one validation come from: drawn, and the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.exporter.validation.base.windows import farthest_relative, windows
from eptx.exporter.validation.bundle.backends import Way
from eptx.exporter.validation.bundle.models import Model, shipped
from eptx.exporter.validation.check import Part
from eptx.exporter.validation.inputs.batch import Batch, Vocabulary, bundle_ids, generated, redraw, untried
from eptx.exporter.validation.inputs.prompts import (
    Reach,
    as_prompts,
    generated_prompts,
    redraw_prompts,
    untried_prompts,
)
from eptx.exporter.validation.inputs.user_data import Rows, from_data


@dataclass
class Inputs:
    """The batches for a bundle.

    Attributes:
        bundle: the bundle.
        config: the base's ``config.json``.
        base: the base's transformers folder.
        longest: the most tokens of a row that the base reads; None where nothing limits it.
    """

    bundle: Bundle
    config: dict[str, Any]
    base: Path
    longest: int | None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the base reads."""
        return Vocabulary.of(self.config, self.longest)

    def batches(self, rows: Rows, names: Sequence[str]) -> list[Batch]:
        """Drawn ones, then those of the user's data.

        Args:
            rows: of the user's data.
            names: the tasks that rows are given.
        """
        drawn = generated(self.bundle.manifest, self.vocabulary, names)
        return [*drawn, *from_data(self.bundle, rows, self.base, self.longest)]

    def redraw(self, batch: Batch) -> Batch:
        """Another batch of the same shape and tasks."""
        return redraw(batch, self.bundle.manifest, self.vocabulary)

    def untried(self) -> list[Part]:
        """What none of the drawn batches reaches."""
        return untried(self.bundle.manifest, self.vocabulary)


@dataclass
class PromptInputs(Inputs):
    """The same for one that generates, whose answers some batches hold.

    Attributes:
        way: how the bundle answers.
    """

    way: Way
    _model: Model | None = field(default=None, repr=False)

    @cached_property
    def reach(self) -> Reach:
        """What the base tells apart by distance."""
        return Reach(windows(self.config), farthest_relative(self.config))

    def batches(self, rows: Rows, names: Sequence[str]) -> list[Batch]:
        """As above; what is to be answered is."""
        manifest, vocabulary = self.bundle.manifest, self.vocabulary
        drawn = generated_prompts(manifest, vocabulary, names, self.reach)
        data = from_data(self.bundle, rows, self.base, self.longest)
        texts = [prompts for batch in data for prompts in as_prompts(batch, manifest, vocabulary)]
        return [self._answered(batch) for batch in (*drawn, *texts)]

    def redraw(self, batch: Batch) -> Batch:
        """As above."""
        return self._answered(redraw_prompts(batch, self.bundle.manifest, self.vocabulary))

    def untried(self) -> list[Part]:
        """As above."""
        return untried_prompts(self.bundle.manifest, self.vocabulary, self.reach)

    def _answered(self, batch: Batch) -> Batch:
        if not batch.greedy:
            return batch
        if self._model is None:
            self._model = shipped(self.bundle, self.way)
        return self._model.answer(batch, bundle_ids(self.bundle.manifest, batch))

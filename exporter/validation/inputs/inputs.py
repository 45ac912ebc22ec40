"""All batches of one validation: random ones, and the user's texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.exporter.validation.base.lookups import Lookups
from eptx.exporter.validation.base.windows import farthest_relative, windows
from eptx.exporter.validation.inputs.prompts import (
    Reach,
    as_prompts,
    generated_prompts,
    redraw_prompts,
    untried_prompts,
)
from eptx.exporter.validation.inputs.random_batches import generated, redraw, untried
from eptx.exporter.validation.inputs.user_data import Rows, check_tokens, from_data
from eptx.exporter.validation.inputs.vocabulary import Vocabulary
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.check import Check


@dataclass
class Inputs:
    """The batches for a bundle.

    Attributes:
        bundle: the bundle.
        config: the base's ``config.json``.
        base: the base's transformers folder.
        found: the sizes of the trained model's tables.
        home: the adapter's folder, where that has the tokenizer that was trained with; None: the base's.
    """

    bundle: Bundle
    config: dict[str, Any]
    base: Path
    found: Lookups
    home: Path | None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the base and of the tasks."""
        return Vocabulary.of(self.config, self.found)

    def batches(self, rows: Rows, names: Sequence[str]) -> list[Batch]:
        """Random ones, then those of the user's data.

        Args:
            rows: of the user's data.
            names: the tasks that rows are given.
        """
        drawn = generated(self.bundle.manifest, self.vocabulary, names)
        return [*drawn, *self._given(rows)]

    def _given(self, rows: Rows) -> list[Batch]:
        data = from_data(self.bundle, rows, self.base, self.found.longest, self.home)
        check_tokens(data, self.vocabulary)
        return data

    def redraw(self, batch: Batch) -> Batch:
        """Another batch of the same shape and tasks."""
        return redraw(batch, self.bundle.manifest, self.vocabulary)

    def untried(self) -> list[Check]:
        """What none of the random batches reaches."""
        return untried(self.bundle.manifest, self.vocabulary)


@dataclass
class PromptInputs(Inputs):
    """The batches for a bundle that generates.

    Attributes:
        answers: completes greedy batches with the tokens that the bundle chooses.
    """

    answers: Callable[[Sequence[Batch]], list[Batch]]

    @cached_property
    def reach(self) -> Reach:
        """What the base's attention distinguishes by distance."""
        return Reach(windows(self.config), farthest_relative(self.config))

    def batches(self, rows: Rows, names: Sequence[str]) -> list[Batch]:
        """Random prompts, then those of the user's data; the bundle has answered the greedy ones."""
        manifest, vocabulary = self.bundle.manifest, self.vocabulary
        drawn = generated_prompts(manifest, vocabulary, names, self.reach)
        texts = [prompts for batch in self._given(rows) for prompts in as_prompts(batch, manifest, vocabulary)]
        return self._answered([*drawn, *texts])

    def redraw(self, batch: Batch) -> Batch:
        """Other prompts of the same shape and tasks."""
        return self._answered([redraw_prompts(batch, self.bundle.manifest, self.vocabulary)])[0]

    def untried(self) -> list[Check]:
        """What none of the random prompts reaches."""
        return untried_prompts(self.bundle.manifest, self.vocabulary, self.reach)

    def _answered(self, batches: Sequence[Batch]) -> list[Batch]:
        answers = iter(self.answers([batch for batch in batches if batch.greedy]))
        return [next(answers) if batch.greedy else batch for batch in batches]

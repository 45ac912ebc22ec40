"""Where the batches of one validation come from: drawn, and the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eptx.bundle import Bundle
from eptx.exporter.validation.batches import Batch, bundle_ids, generated, redraw
from eptx.exporter.validation.data import from_data
from eptx.exporter.validation.models import Model, shipped
from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.prompts import as_prompts, generated_prompts, redraw_prompts


@dataclass
class Inputs:
    """The batches for a bundle.

    Attributes:
        bundle: the bundle.
        config: the base's ``config.json``.
        base: the base's transformers folder.
    """

    bundle: Bundle
    config: dict[str, Any]
    base: Path

    def batches(self, options: ValidateOptions, names: Sequence[str]) -> list[Batch]:
        """Drawn ones, then those of the user's data.

        Args:
            options: of the validation.
            names: the tasks that rows are given.
        """
        drawn = generated(self.bundle.manifest, self.config, names)
        return [*drawn, *from_data(self.bundle, options, names, self.base)]

    def redraw(self, batch: Batch) -> Batch:
        """Another batch of the same shape and tasks."""
        return redraw(batch, self.bundle.manifest, self.config)


@dataclass
class PromptInputs(Inputs):
    """The same for one that generates, whose answers some batches hold.

    Attributes:
        provider: on which the bundle answers.
    """

    provider: str
    _model: Model | None = field(default=None, repr=False)

    def batches(self, options: ValidateOptions, names: Sequence[str]) -> list[Batch]:
        """As above; what is to be answered is."""
        manifest = self.bundle.manifest
        data = from_data(self.bundle, options, names, self.base)
        texts = [prompts for batch in data for prompts in as_prompts(batch, manifest)]
        return [self._answered(batch) for batch in (*generated_prompts(manifest, self.config, names), *texts)]

    def redraw(self, batch: Batch) -> Batch:
        """As above."""
        return self._answered(redraw_prompts(batch, self.bundle.manifest, self.config))

    def _answered(self, batch: Batch) -> Batch:
        if not batch.greedy:
            return batch
        if self._model is None:
            self._model = shipped(self.bundle, self.provider)
        return self._model.answer(batch, bundle_ids(self.bundle.manifest, batch))

"""The settings of a validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eptx.errors import UsageError
from eptx.exporter.folders import Adapters, Given
from eptx.providers import PROVIDER_CHOICES
from eptx.runtime.measure import Source
from eptx.runtime.measure.budget import check_points


def is_dataset(path: Path) -> bool:
    """Whether data is a dataset folder or a parquet table, and not a jsonl file."""
    return path.is_dir() or path.suffix == ".parquet"


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """Settings of a validation.

    Attributes:
        base: the base model's transformers folder, or its id on the hub; None takes that of the export.
        adapters: the adapter's folders or ids; None takes those that the bundle was made from.
        tasks: names of the adapter's tasks by id, where the bundle does not hold them all (static mode).
        top_k: EPT: experts per task; None takes what the export was given.
        model_class: the transformers class that was trained; None takes what the export was given.
        labels: task -> the names of its labels (of the key None those of the only task), to compare with the export's.
        base_onnx: the ONNX file of the base, to compare its fingerprint; None takes what the export was given.
        providers: names of `eptx.providers.PROVIDERS`; "auto" is the CPU, and CUDA where it starts.
        data: rows to validate on as well, with text, text_pair, task and label: a jsonl file, or several sources.
        rows: how many rows of a task to use; None: 64 for the reference, and as many as the export used to measure
            what quantizing loses.
        max_drop: quantized bundles: task -> points of its metric that it may lose; the key None is of every task that
            is not named. A task that neither names has the bundle's own budget.
        allow_pickle: whether an adapter's ``adapter_model.bin`` is read, by torch's ``weights_only`` loader.
        record: the file to write the bundle's proof to, if it passes; see `eptx.runtime.validation.proof`.
        record_bytes: how many bytes the proof may have, if a sample of one number a place fits; None: 5 MB, and 20 MB
            where text is generated.
        against: quantized bundles: the fp32 bundle to measure the loss against; None exports one.
    """

    base: Given | None = None
    adapters: Adapters | None = None
    tasks: Sequence[str] | None = None
    top_k: int | None = None
    model_class: str | None = None
    labels: Mapping[str | None, Sequence[str]] = field(default_factory=dict)
    base_onnx: Path | None = None
    providers: Sequence[str] = ("auto",)
    data: Path | Sequence[Source] | None = None
    rows: int | None = None
    max_drop: Mapping[str | None, float] = field(default_factory=dict)
    against: Path | None = None
    record: Path | None = None
    record_bytes: int | None = None
    allow_pickle: bool = False

    @property
    def sources(self) -> Sequence[Source]:
        """The data, source by source."""
        if isinstance(self.data, Path):
            return [Source(self.data)]
        return self.data or []

    def check(self) -> None:
        """Raises UsageError for an unknown provider or no rows, DataError for a budget that is no number of points."""
        for provider in self.providers:
            if provider not in PROVIDER_CHOICES:
                raise UsageError(f"--provider {provider!r}: choose from {', '.join(PROVIDER_CHOICES)}")
        if self.rows is not None and self.rows < 1:
            raise UsageError(f"--rows {self.rows}: at least one row per task is needed")
        if self.record_bytes is not None and self.record_bytes < 1:
            raise UsageError(f"record_bytes {self.record_bytes}: a proof has at least one byte")
        check_points(self.max_drop)

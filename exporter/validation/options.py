"""What one validation is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eptx.errors import UsageError

PROVIDERS = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """Settings of a validation.

    Attributes:
        base: the base model's transformers folder; None takes the one that the bundle was made from.
        adapters: the adapter's folders; None takes those that the bundle was made from.
        tasks: names of the adapter's tasks by id, where the bundle does not hold them all (static mode).
        top_k: EPT: experts per task; None takes what the export was given.
        base_onnx: the ONNX file of the base, to compare its fingerprint; None takes what the export was given.
        providers: "cpu", "cuda" or "auto" (all that this machine has).
        data: texts to validate on as well, jsonl with text, text_pair, task and label.
        rows: how many rows of the data to use per task.
    """

    base: Path | None = None
    adapters: Sequence[Path] | None = None
    tasks: Sequence[str] | None = None
    top_k: int | None = None
    base_onnx: Path | None = None
    providers: Sequence[str] = ("auto",)
    data: Path | None = None
    rows: int = 64

    def check(self) -> None:
        """Raises UsageError for a provider that does not exist, or no rows."""
        for provider in self.providers:
            if provider not in PROVIDERS:
                raise UsageError(f"--provider {provider!r}: choose from {', '.join(PROVIDERS)}")
        if self.rows < 1:
            raise UsageError(f"--rows {self.rows}: at least one row per task is needed")

"""What a validation found, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eptx.bundle import Manifest
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.check import Check
from eptx.runtime.validation.comparison.results import BackendReport
from eptx.runtime.validation.distance import LIMIT
from eptx.runtime.validation.expectation import LiveRoute
from eptx.runtime.validation.quantizing import BudgetedDrop, Divergence
from eptx.runtime.validation.report.json_types import json_types
from eptx.runtime.validation.timings import StageTimes

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report:
    """What a validation found.

    Attributes:
        manifest: of the bundle.
        batches: what the bundle and the reference were fed.
        redrawn: how many random batches were drawn again for a router tie.
        live: how far frozen routes are from the live ones; None without user's data or a frozen route.
        providers: one report for every backend.
        drops: of a quantized bundle: what each task loses against fp32.
        divergences: the same on random inputs, of tasks without a budget and without labelled rows.
        warnings: what did not stop the validation.
        checks: of everything that is compared with its source one by one, and of what cannot be checked.
        seconds: how long each stage took.
        proof: what recorded the proof that stood for the trained model; None where that itself was run.
    """

    manifest: Manifest
    batches: Sequence[Batch]
    redrawn: int
    live: LiveRoute | None
    providers: Sequence[BackendReport]
    drops: Sequence[BudgetedDrop] = field(default=())
    divergences: Sequence[Divergence] = field(default=())
    warnings: Sequence[str] = field(default=())
    checks: Sequence[Check] = field(default=())
    seconds: StageTimes = field(default_factory=StageTimes)
    proof: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every task is accepted on every backend and keeps to its budget, and no check failed."""
        return not (any(provider.blocking for provider in self.providers) or self.failed_checks or self._over)

    @property
    def failed_checks(self) -> list[Check]:
        """The checks that found something wrong."""
        return [check for check in self.checks if check.wrong is not None]

    @property
    def _over(self) -> list[BudgetedDrop | Divergence]:
        losses: list[BudgetedDrop | Divergence] = [*self.drops, *self.divergences]
        return [loss for loss in losses if loss.within is False]

    @property
    def reason(self) -> str:
        """The first failure, as one line; "" if it passed."""
        wrong, ran = self.failed_checks, self._failed_run
        if wrong:  # first, since a wrong table or field makes runs wrong
            more = f" (and {len(wrong) - 1} more checks)" if len(wrong) > 1 else ""
            # a proof only sees that a file has changed; the run says what that has changed
            where = f"; {ran}" if ran and self.proof is not None else ""
            return f"{wrong[0].name}: {wrong[0].wrong}{more}{where}"
        if ran:
            return ran
        more = f" (and {len(self._over) - 1} more tasks)" if len(self._over) > 1 else ""
        return f"{self._over[0].sentence}{more}" if self._over else ""

    @property
    def _failed_run(self) -> str:
        """The first task that a run does not accept, as one line; "" if all are."""
        for provider in self.providers:
            bad = sorted(provider.blocking, key=lambda task: task.verdict != "fail")
            if bad:
                more = f" (and {len(bad) - 1} more tasks)" if len(bad) > 1 else ""
                return f"provider {provider.name}: {bad[0].sentence}{more}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """What goes into validation.json and ``--json``; null stands for an infinite number and for NaN."""
        manifest = self.manifest
        content = {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "reason": self.reason or None,
            "limit": LIMIT,
            "proof": self.proof,
            "bundle": {
                "mode": manifest.mode,
                "method": manifest.method,
                "model_type": manifest.model_type,
                "precision": manifest.precision,
                "provider": manifest.provider,
                "routing": manifest.routing,
                "tasks": [task.name for task in manifest.tasks],
                "fingerprints": dict(manifest.fingerprints),
                "generator": manifest.generator,
            },
            "inputs": [described(batch) for batch in self.batches],
            "redrawn": self.redrawn,
            "frozen_from_live": None if self.live is None else asdict(self.live),
            "providers": [provider.to_json() for provider in self.providers],
            "drops": [drop.to_json() for drop in self.drops],
            "divergences": [one.to_json() for one in self.divergences],
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
        }
        return {key: json_types(value) for key, value in content.items()}


def described(batch: Batch) -> dict[str, Any]:
    """A batch's name and shape, as JSON types."""
    shape = list(next(iter(batch.arrays.values())).shape)
    kept = batch.kept
    padded = kept is not None and not kept.all()
    return {"name": batch.name, "shape": shape, "padded": padded, "prompt": batch.prompt}

"""How far a quantized bundle's answers, as shipped, are from those of the model with its own weights.

Where nobody gave rows or a budget, this is what says that quantizing lost too much. The reference has the base's own
weights and the trained adapter, in float32; it is fed what the bundle was fed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from eptx.bundle import Bundle
from eptx.exporter.validation.asking import Asked, Expected, kept_values
from eptx.exporter.validation.batches import AUTO, Batch, bundle_ids
from eptx.exporter.validation.models import shipped
from eptx.exporter.validation.sources import Truth

Measure = Literal["share of the size", "nats"]

#: The most that is accepted where nobody says; docs/validation.md has what was measured to choose them.
LIMITS: dict[Measure, float] = {"share of the size": 0.5, "nats": 1.0}


@dataclass(frozen=True)
class Divergence:
    """One task.

    Attributes:
        task: its name.
        output: the output that is furthest from the reference's.
        measure: "nats": of tokens, the mean Kullback-Leibler divergence; else the root mean square of the difference
            over that of the values, without their mean.
        value: what was measured. limit: the most that is accepted.
        disagreement: of tokens, the share of positions where another one is the likeliest; None for others.
        numbers: how many positions (else: numbers) were compared.
    """

    task: str
    output: str
    measure: Measure
    value: float
    limit: float
    disagreement: float | None
    numbers: int

    @property
    def within(self) -> bool:
        """Whether it is accepted; what is no number is not."""
        return self.value <= self.limit

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        tokens = "" if self.disagreement is None else f"; {self.disagreement:.1%} of the likeliest tokens are others"
        if self.measure == "nats":
            what = f"quantizing changes {self.output} by {self.value:.3g} nats a token{tokens}"
        else:
            what = f"quantizing changes {self.output} by {self.value:.3g} of their size"
        return f"{self.task}: {what}; the default limit is {self.limit:g} (--data and --max-drop say it better)"

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"within": self.within}


def divergences(
    bundle: Bundle, truth: Truth, batches: Sequence[Batch], tasks: Collection[str], provider: str
) -> list[Divergence]:
    """How far each task's outputs are from those of the unquantized model.

    Args:
        bundle: as it is shipped.
        truth: the trained model.
        batches: what to run; of a generator, with the tokens that the bundle chose.
        tasks: those to measure.
        provider: where the bundle runs.
    """
    if not tasks:
        return []
    reference, model = Asked(bundle.manifest, truth, torch.float32), shipped(bundle, provider)
    pairs: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for batch in batches:
        if not set(tasks).intersection(batch.tasks):
            continue
        expected = reference.run(batch)
        found = model.run(batch, bundle_ids(bundle.manifest, batch)).outputs
        for task, name, own, wanted in _pairs(expected, found, tasks):
            pairs[task, name].append((own, wanted))
    tokens = bundle.manifest.generation is not None
    measured = [_measure(task, name, own, tokens and name == "logits") for (task, name), own in pairs.items()]
    return [
        max((one for one in measured if one.task == task), key=_severity)
        for task in dict.fromkeys(m.task for m in measured)
    ]


def _severity(one: Divergence) -> float:
    return one.value / one.limit if np.isfinite(one.value) else np.inf


def _pairs(
    expected: Expected, found: dict[str, np.ndarray], tasks: Collection[str]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """For every task and output what the bundle gave and what the reference did, [n, values]."""
    for name, wanted in expected.outputs.items():
        if name not in found:
            continue
        width = min(found[name].shape[-1], wanted.shape[-1])
        for task in dict.fromkeys(expected.batch.tasks):
            if task in tasks and task != AUTO:
                rows = np.array([own == task for own in expected.batch.tasks])
                both = (kept_values(array[..., :width], rows, expected.batch) for array in (found[name], wanted))
                own, exact = (array.reshape(-1, width).astype(np.float64) for array in both)
                yield task, name, own, exact


def _measure(task: str, name: str, pairs: list[tuple[np.ndarray, np.ndarray]], tokens: bool) -> Divergence:
    found, wanted = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    if tokens:
        apart = float(np.mean(found.argmax(-1) != wanted.argmax(-1)))
        return Divergence(task, name, "nats", _divergence(found, wanted), LIMITS["nats"], apart, len(found))
    size = float(np.sqrt(np.square(wanted - wanted.mean(0)).mean())) if len(wanted) > 1 else 0.0
    size = size or float(np.sqrt(np.square(wanted).mean()))
    error = float(np.sqrt(np.square(found - wanted).mean()))
    value = error / size if size else 0.0 if error == 0 else np.inf
    return Divergence(task, name, "share of the size", value, LIMITS["share of the size"], None, found.size)


def _divergence(found: np.ndarray, wanted: np.ndarray) -> float:
    """The mean of KL(wanted || found) over positions."""
    own, exact = (array - array.max(-1, keepdims=True) for array in (found, wanted))
    own, exact = (array - np.log(np.exp(array).sum(-1, keepdims=True)) for array in (own, exact))
    return float((np.exp(exact) * (exact - own)).sum(-1).mean())

"""The distance of a quantized bundle, as it is shipped, from the model with its own weights.

It decides whether quantizing lost too much where there are neither rows nor a budget. The reference has the base's own
weights and the trained adapter, in float32, and runs on the same batches as the bundle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from eptx.bundle import Bundle
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.exporter.validation.reference.reference_runner import ReferenceRunner
from eptx.manifest.names import AUTO_TASK
from eptx.runtime.validation.batch import Batch
from eptx.runtime.validation.expected import Whole
from eptx.runtime.validation.quantizing import Divergence, Measure
from eptx.runtime.validation.running.backends import Backend
from eptx.runtime.validation.running.models import open_shipped
from eptx.runtime.validation.values import kept_values

#: The largest accepted values; docs/validation.md has the measurements behind them.
LIMITS: dict[Measure, float] = {"positions": 0.7, "rows": 0.8, "tokens": 3.0}
_WORST = 1e30
#: Longer batches would take half of a validation's time and add nothing.
_LONGEST = 100


def divergences(
    bundle: Bundle, reference: ReferenceFiles, batches: Sequence[Batch], tasks: Collection[str], backend: Backend
) -> list[Divergence]:
    """Measures how far each task's outputs are from those of the unquantized model.

    Args:
        bundle: as it is shipped.
        reference: the trained model.
        batches: what to run; of a generator, with the tokens that the bundle chose.
        tasks: those to measure.
        backend: how the bundle runs.
    """
    if not tasks:
        return []
    runner, model = ReferenceRunner(bundle.manifest, reference, torch.float32), open_shipped(bundle, backend)
    pairs: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    long: set[str] = set()
    for batch in batches:
        if not set(tasks).intersection(batch.tasks) or batch.greedy or batch.length > _LONGEST:
            continue
        expected = runner.run(batch)
        found = model.run(batch).outputs
        for task, name, own, wanted in _pairs(expected, found, tasks):
            pairs[task, name].append((own, wanted))
        long |= {name for name, wanted in expected.outputs.items() if wanted.ndim > 2}
    generates = bundle.manifest.generation is not None
    worst: dict[str, Divergence] = {}
    for (task, name), both in pairs.items():
        one = _measure(
            task, name, both, "tokens" if generates and name == "logits" else "positions" if name in long else "rows"
        )
        if task not in worst or one.value / one.limit > worst[task].value / worst[task].limit:
            worst[task] = one
    return list(worst.values())


def _pairs(
    expected: Whole, found: dict[str, np.ndarray], tasks: Collection[str]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """For every task and output: the bundle's and the reference's values, [n, values]."""
    for name, wanted in expected.outputs.items():
        if name not in found:
            continue
        width = min(found[name].shape[-1], wanted.shape[-1])
        for task in dict.fromkeys(expected.batch.tasks):
            if task in tasks and task != AUTO_TASK:
                rows = np.array([own == task for own in expected.batch.tasks])
                both = (kept_values(array[..., :width], rows, expected.batch) for array in (found[name], wanted))
                own, exact = (array.reshape(-1, width).astype(np.float64) for array in both)
                yield task, name, own, exact


def _measure(task: str, name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], measure: Measure) -> Divergence:
    """One output of a task, from the arrays [rows or kept positions, values] of every batch."""
    found, wanted = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    if measure == "tokens":
        apart = float(np.mean(found.argmax(-1) != wanted.argmax(-1)))
        return Divergence(task, name, measure, _bounded(_nats(found, wanted)), LIMITS[measure], apart, len(found))
    size = float(np.sqrt(np.square(wanted - (wanted.mean(0) if measure == "positions" else 0)).mean()))
    error = float(np.sqrt(np.square(found - wanted).mean()))
    value = 0.0 if error == 0 else error / size if size else _WORST
    return Divergence(task, name, measure, _bounded(value), LIMITS[measure], None, len(found))


def _bounded(value: float) -> float:
    return min(value, _WORST) if np.isfinite(value) else _WORST


def _nats(found: np.ndarray, wanted: np.ndarray) -> float:
    """The mean of KL(wanted || found) over positions."""
    own, exact = (array - array.max(-1, keepdims=True) for array in (found, wanted))
    own, exact = (array - np.log(np.exp(array).sum(-1, keepdims=True)) for array in (own, exact))
    return float((np.exp(exact) * (exact - own)).sum(-1).mean())

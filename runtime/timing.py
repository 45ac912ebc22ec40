"""Times models against each other in one process: interleaved pairs, and the median of their ratios.

Machines differ, and their speed drifts; the ratio of two runs that follow each other depends on neither. Beside every
median stand the 10th and the 90th percentile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eptx.bundle import Bundle, read_bundle
from eptx.errors import NotSupportedError, UsageError
from eptx.manifest.names import BASE_TASK, PAST, TASK_ID
from eptx.providers import CPU
from eptx.runtime.ort.choice import choose_provider
from eptx.runtime.ort.kernels import Kernels, choose_kernels, register
from eptx.runtime.ort.providers import nodes_by_provider
from eptx.runtime.ort.sessions import open_session, session_options, wrapped_errors

_WARM_UP = 3
_WORDS = 150  # tokens are drawn from the first few, which every vocabulary has
_DTYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class TimedModel:
    """An ONNX model with inputs to time it on.

    Args:
        path: a bundle or an .onnx file.
        task_ids: the ids to spread over the rows of a batch; those of a bundle's tasks when None.
        threads: of ONNX Runtime's operators; None lets it choose.
        provider: a name of `eptx.providers.PROVIDERS`, or "auto".
        native: whether a bundle's own operators run as native kernels, where there are any.
    """

    def __init__(
        self,
        path: Path,
        *,
        task_ids: Sequence[int] | None = None,
        threads: int | None = None,
        provider: str = "cpu",
        native: bool = True,
    ) -> None:
        self.path = path
        model, bundle = _open(path)
        manifest = bundle.manifest if bundle else None
        own_ids = [task.id for task in manifest.tasks if task.name != BASE_TASK] if manifest else []
        self._task_ids = list(task_ids if task_ids is not None else own_ids) or [0]
        self._longest = manifest.max_length if manifest else None
        self._words = min(_WORDS, manifest.shared_vocab_size or _WORDS) if manifest else _WORDS
        # the idle threads of one session would otherwise spin for a while beside the next one's
        options = session_options(threads, entries={"session.force_spinning_stop": "1"})
        self._choice = choose_provider(provider, manifest.provider if manifest else CPU)
        self._kernels = Kernels(None, "not a bundle" if bundle is None else "switched off")
        if bundle and native:
            self._kernels = register(options, choose_kernels(bundle, self._choice.provider))
        with wrapped_errors(f"{path.name}: ONNX Runtime does not load it", UsageError):
            self.session = open_session(model, options, self._choice.provider)

    def info(self) -> dict[str, Any]:
        """What runs where, in the words of `eptx.Session.info`."""
        return {
            "model": str(self.path),
            "provider": self._choice.provider,
            "provider_reason": self._choice.reason,
            "nodes": nodes_by_provider(self.session),
            "kernels": self._kernels.to_json(),
        }

    def feeds(self, batch: int, length: int) -> dict[str, np.ndarray]:
        """Inputs of one shape: the same tokens for every model, tasks in turn.

        Raises:
            UsageError: the model does not read rows of this length.
        """
        if self._longest is not None and length > self._longest:
            raise UsageError(f"{batch}x{length}: the model reads at most {self._longest} tokens a row")
        rng = np.random.default_rng(0)
        return {value.name: self._feed(value, batch, length, rng) for value in self.session.get_inputs()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Seconds of one run.

        Raises:
            UsageError: ONNX Runtime fails on these inputs.
        """
        start = time.perf_counter()
        with wrapped_errors(f"{self.path.name}: ONNX Runtime fails on this shape", UsageError):
            self.session.run(None, feeds)
        return time.perf_counter() - start

    def _feed(self, value: Any, batch: int, length: int, rng: np.random.Generator) -> np.ndarray:
        if value.type not in _DTYPES:
            raise NotSupportedError(f"{self.path.name}: cannot make up an input {value.name} of type {value.type}")
        if value.name == TASK_ID:
            return np.resize(np.array(self._task_ids, dtype=np.int64), batch)
        free = 0 if value.name.startswith(PAST) else length  # a language model reads a prompt: nothing came before it
        shape = [batch, *(dim if isinstance(dim, int) else free for dim in value.shape[1:])]
        if value.name == "input_ids":
            return rng.integers(min(5, self._words - 1), self._words, size=shape).astype(_DTYPES[value.type])
        if value.name == "attention_mask":
            return np.ones(shape, _DTYPES[value.type])
        if np.issubdtype(_DTYPES[value.type], np.floating):
            return rng.normal(size=shape).astype(_DTYPES[value.type])
        return np.zeros(shape, _DTYPES[value.type])


def _open(path: Path) -> tuple[Path, Bundle | None]:
    """The model file, and its bundle; None for an .onnx file."""
    if path.suffix == ".onnx":
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        return path, None
    bundle = read_bundle(path)
    return bundle.model, bundle


def paired(first: Callable[[], float], second: Callable[[], float], pairs: int) -> dict[str, float]:
    """Runs two things in turn, A B B A A B ..., after a warm-up.

    Returns:
        median milliseconds of each and the median of the ratios of the pairs, first over second, each with
        its percentiles as `spread` names them.
    """
    for _ in range(_WARM_UP):
        first()
        second()
    times = []
    for index in range(pairs):
        if index % 2:
            b, a = second(), first()
        else:
            a, b = first(), second()
        times.append((a, b))
    return {
        **spread("milliseconds", [1e3 * a for a, _ in times]),
        **spread("against_milliseconds", [1e3 * b for _, b in times]),
        **spread("ratio", [a / b for a, b in times]),
    }


def compare(
    path: Path,
    against: Path | None,
    shapes: Sequence[tuple[int, int]],
    *,
    task: str | None = None,
    pairs: int = 20,
    threads: int | None = None,
    provider: str = "cpu",
) -> list[dict[str, Any]]:
    """Times a model on several shapes, alone or against another.

    Returns:
        for each shape: "shape", "milliseconds", and "against_milliseconds" and "ratio" (None when alone), with
        percentiles as `spread` names them. Of a language model it is a run of the whole prompt.
    """
    model = TimedModel(path, task_ids=task_ids(path, task), threads=threads, provider=provider)
    other = TimedModel(against, threads=threads, provider=provider) if against is not None else None
    return timed(model, other, shapes, pairs)


def timed(
    model: TimedModel, other: TimedModel | None, shapes: Sequence[tuple[int, int]], pairs: int = 20
) -> list[dict[str, Any]]:
    """What `compare` returns, of models that are open."""
    return [{"shape": f"{batch}x{length}", **_timed(model, other, batch, length, pairs)} for batch, length in shapes]


def _timed(model: TimedModel, other: TimedModel | None, batch: int, length: int, pairs: int) -> dict[str, float | None]:
    feeds = model.feeds(batch, length)
    if other is not None:
        other_feeds = other.feeds(batch, length)
        return {**paired(lambda: model.run(feeds), lambda: other.run(other_feeds), pairs)}
    runs = [model.run(feeds) for _ in range(_WARM_UP + pairs)][_WARM_UP:]
    return {**spread("milliseconds", [1e3 * run for run in runs]), "against_milliseconds": None, "ratio": None}


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The median under a name, and the 10th and 90th percentile under that name with ``_p10`` and ``_p90``."""
    low, high = np.quantile(values, (0.1, 0.9))
    return {name: statistics.median(values), f"{name}_p10": float(low), f"{name}_p90": float(high)}


def task_ids(path: Path, task: str | None) -> list[int] | None:
    """The id of one task of a bundle, or None for all of its tasks.

    Raises:
        UsageError: the bundle has no such task.
    """
    if task is None:
        return None
    tasks = {t.name: t.id for t in read_bundle(path, verify=False).manifest.tasks}
    if task not in tasks:
        raise UsageError(f"unknown task {task!r}; the bundle has {', '.join(tasks)}")
    return [tasks[task]]

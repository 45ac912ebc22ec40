"""The latency of a bundle beside another: interleaved runs, and the median of their paired ratios."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from eptx.manifest.names import BASE_TASK, PAST, PRESENT, TASK_ID
from eptx.runtime import Session
from eptx.runtime.timing import paired

#: Rows and tokens of an encoder's batch; positions in a decoder's cache; tokens that an encoder-decoder generates.
BATCH, LENGTH, CACHE, TOKENS = 8, 32, 64, 8
_PAIRS = 15


def timed_shape(session: Session) -> str:
    """What `latency` times, in words."""
    if session.manifest.encoder is not None:
        return f"{TOKENS} tokens generated from {LENGTH}"
    if session.manifest.generation is not None:
        return f"one token after {CACHE}"
    return f"{BATCH} rows" if _images(session) else f"{BATCH} rows of {LENGTH} tokens"


def latency(session: Session, against: Session) -> tuple[float, float]:
    """Median milliseconds of the first, and the median ratio of the first over the other."""
    result = paired(_seconds(_call(session)), _seconds(_call(against)), _PAIRS)
    return result["milliseconds"], result["ratio"]


def _seconds(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return run


def _images(session: Session) -> bool:
    return all(spec.name != "input_ids" for spec in session.inputs)


def _call(session: Session) -> Callable[[], object]:
    manifest, tasks = session.manifest, [name for name in session.tasks if name != BASE_TASK]
    vocabulary, rng = manifest.shared_vocab_size or 1000, np.random.default_rng(0)
    several = len(session.tasks) > 1

    def tokens(rows: int, length: int) -> np.ndarray:
        return rng.integers(min(5, vocabulary - 1), vocabulary, (rows, min(length, manifest.max_length or length)))

    if manifest.encoder is not None:
        prompt, task = tokens(1, LENGTH).tolist(), tasks[0] if several else None
        return lambda: session.generate(prompt, task, max_new_tokens=TOKENS)
    if manifest.generation is not None:
        return _decode(session, tokens(1, CACHE), tasks[0] if several else None)
    if _images(session):
        arrays = {
            s.name: rng.normal(size=(BATCH, *map(int, s.shape[1:]))).astype(np.float32) for s in session.inputs[:1]
        }
    else:
        ids = tokens(BATCH, LENGTH)
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        arrays = {spec.name: known[spec.name] for spec in session.inputs if spec.name in known}
    task_of_rows = [tasks[index % len(tasks)] for index in range(BATCH)] if several else None
    return lambda: session.run(arrays, task_of_rows)


def _decode(session: Session, ids: np.ndarray, task: str | None) -> Callable[[], object]:
    """Generates one more token, with the cache of a prompt."""
    given = {spec.name for spec in session.inputs}
    first = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)}, task)
    arrays = {f"{PAST}{name.removeprefix(PRESENT)}": first[name] for name in first if name.startswith(PRESENT)}
    arrays |= {name.removesuffix("_used"): first[name] for name in first if name.removesuffix("_used") in given}
    arrays.pop(TASK_ID, None)
    arrays["input_ids"] = ids[:, -1:]
    arrays["attention_mask"] = np.ones((1, ids.shape[1] + 1), np.int64)
    return lambda: session.run(arrays, task)

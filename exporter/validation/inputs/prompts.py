"""Batches for a language model: prompts, and the tokens that follow them one by one.

Rows of different lengths are padded on the left, as transformers needs them. A row's task is inferred from its first
position, so a batch with such rows is padded on the right, in the reference too. For an encoder-decoder, the prompt is
the text and the beginning of its answer.

An attention window has an effect only on longer prompts, and relative positions only at distances that they
distinguish. So one prompt, or one text of an encoder-decoder, is as long as that takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np

from eptx.bundle import Generation, Manifest, TensorSpec
from eptx.exporter.validation.inputs.vocabulary import LONGEST_INSIDE, LONGEST_ROW, UNLIMITED, Vocabulary
from eptx.manifest.names import AUTO_TASK, TASK_ID
from eptx.runtime.validation.batch import ANSWER_IDS, CHOSEN, Batch
from eptx.runtime.validation.check import Check

#: (length, rows) of prompts for different lengths of the cache.
_PASTS = ((1, 1), (7, 2), (63, 3), (200, 1))
_LONGEST = max(length for length, _ in _PASTS)
_MIXED, _ANSWERED, _ROWS = 20, 12, 4
_STEPS, _ANSWER = 3, 12
#: By how many tokens a prompt is longer than a window, and the widest window that gets a prompt.
_PAST_WINDOW, _WIDEST = 24, 4096 + 40
#: An encoder-decoder's long text is so many times the distance that its relative positions distinguish.
_TIMES = 4


@dataclass(frozen=True)
class Reach:
    """What a base's attention distinguishes by distance.

    Attributes:
        windows: the sizes of its layers' windows.
        relative: the distance from which on relative positions are all the same, None if it has none.
    """

    windows: Sequence[int] = ()
    relative: int | None = None


_NEAR = Reach()


@dataclass(frozen=True)
class _Shape:
    """The length of a batch's longest prompt, whether the other rows are shorter, how many tokens follow, and, for an
    encoder-decoder, the length of the text."""

    length: int
    padded: bool
    steps: int
    text: int = _MIXED


def generated_prompts(
    manifest: Manifest, vocabulary: Vocabulary, names: Sequence[str], reach: Reach = _NEAR
) -> list[Batch]:
    """Batches of random prompts: of one to 200 tokens, one to four rows, every task in rows of one and of several
    lengths; one past every window; one as long as the context, where that is short.

    Args:
        manifest: of a bundle that generates.
        vocabulary: of the base.
        names: the rows' tasks: the bundle's, and ``auto`` where it infers.
        reach: of the base.
    """
    padded = manifest.routing != "batch"  # the released route averages over padding too
    tasks = cycle(names)
    plans = [
        (Batch(f"prompts of {length}", {}, tuple(islice(tasks, rows))), _Shape(length, padded, _STEPS))
        for length, rows in _PASTS
    ]
    for start in range(0, len(names), _ROWS):
        four = tuple(islice(cycle([*names[start : start + _ROWS], *names[:start]]), _ROWS))
        mixed = Batch(f"mixed from {four[0]}", {}, four, measures_effect=True)
        plans.append((mixed, _Shape(_MIXED, padded, _STEPS)))
        plans.append((Batch(f"answers from {four[0]}", {}, four[::-1], greedy=True), _Shape(_ANSWERED, False, _ANSWER)))
    if manifest.encoder is None:
        past = [window + _PAST_WINDOW for window in _shown(vocabulary, reach) if window <= _WIDEST]
        far = max(past, default=0)
        if far > _LONGEST:
            batch = Batch(f"prompt of {far}, past the window", {}, (names[0],), inside=far <= LONGEST_INSIDE)
            plans.append((batch, _Shape(far, False, _STEPS)))
        whole = vocabulary.longest - _STEPS
        if max(far, _LONGEST) < whole <= LONGEST_INSIDE:
            plans.append((Batch(f"prompt of {whole}", {}, (names[0],)), _Shape(whole, False, _STEPS)))
    elif _features(manifest) is None:
        text = _far_text(vocabulary, reach)
        batch = Batch(f"text of {text}", {}, (names[0],), inside=text <= LONGEST_INSIDE)
        plans.append((batch, _Shape(_MIXED, False, _STEPS, text)))
    return [_draw(manifest, vocabulary, replace(batch, seed=seed), shape) for seed, (batch, shape) in enumerate(plans)]


def redraw_prompts(batch: Batch, manifest: Manifest, vocabulary: Vocabulary) -> Batch:
    """Another batch of the same shape and tasks, from the next seed."""
    assert batch.seed is not None and batch.prompt is not None
    kept = np.ones((batch.rows, _MIXED), bool) if batch.kept is None else batch.kept
    shape = _Shape(batch.prompt, not kept.all(), batch.length - batch.prompt, int(kept.sum(axis=1).max()))
    return _draw(manifest, vocabulary, replace(batch, seed=batch.seed + 1000), shape)


def untried_prompts(manifest: Manifest, vocabulary: Vocabulary, reach: Reach) -> list[Check]:
    """A check for everything that no random prompt reaches, with the reason."""
    if manifest.encoder is not None:
        return []
    shown = _shown(vocabulary, reach)
    far = max([_LONGEST, *(window + _PAST_WINDOW for window in shown if window <= _WIDEST)])
    why = f"the longest prompt that is tried has {_WIDEST + _PAST_WINDOW} tokens"
    checks = [
        Check(f"attention window of {window} tokens", "unchecked", why=why) for window in shown if window > _WIDEST
    ]
    if LONGEST_INSIDE < vocabulary.longest < UNLIMITED:
        why = "tables of positions and windows are compared up to the end of the context; no prompt as long is run"
        checks.append(Check(f"prompts of more than {far} tokens", "compared", why=why))
    return checks


def _shown(vocabulary: Vocabulary, reach: Reach) -> list[int]:
    """The windows that are shorter than the longest prompt."""
    return [window for window in reach.windows if window + _STEPS < vocabulary.longest]


def _far_text(vocabulary: Vocabulary, reach: Reach) -> int:
    """The length of an encoder-decoder's long text."""
    known = vocabulary.longest if vocabulary.longest < UNLIMITED else LONGEST_INSIDE
    wanted = known if reach.relative is None else _TIMES * reach.relative
    return min(wanted, vocabulary.longest, LONGEST_ROW)


def as_prompts(batch: Batch, manifest: Manifest, vocabulary: Vocabulary) -> list[Batch]:
    """The user's texts as prompts that the bundle answers; a text that is too long keeps its end."""
    longest = vocabulary.longest - _ANSWER
    kept = batch.kept
    assert kept is not None
    rows = [ids[mask][-longest:] for ids, mask in zip(batch.arrays["input_ids"], kept, strict=True)]
    batches = []
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        some = replace(batch, name=f"{batch.name}.{start // _ROWS}", tasks=batch.tasks[part], labels=(), greedy=True)
        following = np.full((len(rows[part]), _ANSWER), CHOSEN)
        if manifest.encoder is None:
            batches.append(_laid_out(some, rows[part], _generation(manifest).pad, following))
        else:
            starts = np.full((len(following), 1), _generation(manifest).start)
            batches.append(_answering(some, rows[part], starts, following, manifest))
    return batches


def _draw(manifest: Manifest, vocabulary: Vocabulary, batch: Batch, shape: _Shape) -> Batch:
    vocabulary = vocabulary.shared(batch.tasks)
    rng = np.random.default_rng([20261, batch.seed or 0])
    length = max(1, min(shape.length, _most(manifest, vocabulary) - shape.steps))
    longest = length if manifest.encoder is None else min(shape.text, vocabulary.longest)
    lengths = np.full(batch.rows, longest)
    if shape.padded:
        lengths[1:] = rng.integers(1, longest + 1, batch.rows - 1)
    texts = [vocabulary.draw(rng, int(n)) for n in lengths]
    following = np.stack([vocabulary.draw(rng, shape.steps) for _ in texts])
    following = np.full_like(following, CHOSEN) if batch.greedy else following
    if manifest.encoder is not None:
        begun = np.stack([vocabulary.draw(rng, length) for _ in texts])
        begun[:, 0] = _generation(manifest).start
        spec = _features(manifest)
        if spec is None:
            return _answering(batch, texts, begun, following, manifest)
        sound = rng.standard_normal((batch.rows, *map(int, spec.shape[1:]))).astype(spec.dtype)
        arrays = {spec.name: sound, ANSWER_IDS: np.concatenate([begun, following], axis=1)}
        return replace(batch, arrays=arrays, prompt=length)
    for text in texts:
        text[0] = vocabulary.first if vocabulary.first is not None and len(text) > 1 else text[0]
    return _laid_out(batch, texts, vocabulary.pad, following)


def _laid_out(batch: Batch, prompts: Sequence[np.ndarray], pad: int, following: np.ndarray) -> Batch:
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if AUTO_TASK in batch.tasks else slice(width - len(prompt), width)
        ids[row, place], mask[row, place] = prompt, 1
    arrays = {
        "input_ids": np.concatenate([ids, following], axis=1),
        "attention_mask": np.concatenate([mask, np.ones_like(following)], axis=1),
    }
    return replace(batch, arrays=arrays, prompt=width)


def _answering(
    batch: Batch, texts: Sequence[np.ndarray], begun: np.ndarray, following: np.ndarray, manifest: Manifest
) -> Batch:
    """An encoder-decoder's texts, padded on the right, and the beginnings of their answers.

    Values are matched with the text by their number of positions, so a text is never as wide as its answer.
    """
    answer = np.concatenate([begun, following], axis=1)
    width = max(map(len, texts))
    width += width == answer.shape[1]
    ids = np.full((len(texts), width), _generation(manifest).pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    arrays = {"input_ids": ids, "attention_mask": mask, ANSWER_IDS: answer}
    return replace(batch, arrays=arrays, prompt=begun.shape[1])


def _features(manifest: Manifest) -> TensorSpec | None:
    """What the encoder of a model reads that reads no tokens."""
    specs = [] if manifest.encoder is None else [spec for spec in manifest.encoder.inputs if spec.name != TASK_ID]
    return None if not specs or any(spec.name == "input_ids" for spec in specs) else specs[0]


def _most(manifest: Manifest, vocabulary: Vocabulary) -> int:
    """The most tokens of one row: of a prompt and its answer, or of an encoder-decoder's answer alone."""
    if manifest.encoder is None:
        return vocabulary.longest
    return _generation(manifest).longest or UNLIMITED


def _generation(manifest: Manifest) -> Generation:
    assert manifest.generation is not None
    return manifest.generation

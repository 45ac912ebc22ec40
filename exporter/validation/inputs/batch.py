"""The inputs that a bundle is validated on: random, seeded, of several shapes and mixes of tasks.

How many tokens there are, and how many of them a row holds, is the base's to say, and not the bundle's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from eptx.bundle import Manifest, TensorSpec
from eptx.errors import BundleError, NotSupportedError
from eptx.exporter.validation.base.windows import full_config
from eptx.exporter.validation.check import Part
from eptx.manifest.names import AUTO_TASK, INFER, TASK_ID

#: The tokens of an encoder-decoder's answer, beside those of the text.
ANSWER_IDS = "decoder_input_ids"
#: Stands for a token that the bundle is to choose.
CHOSEN = -1
#: The longest row of a base whose positions have no end.
UNENDING = 1 << 20
_TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_MIXED, _MANY = "mixed", "many rows"
_LENGTH, _MANY_LENGTH, _LONG = 12, 20, 64
#: Rows of the largest batch, whose rows are short.
_MOST_ROWS = 17
#: The longest row that is tried, which costs the reference seconds to minutes.
MOST = 2048
#: The longest row of which every module is looked at, and not the outputs alone: they are in memory together.
INSIDE = 512


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes:
        name: what the report calls it.
        arrays: graph input -> array [rows, ...], ``task_id`` not among them.
        tasks: each row's task name; ``auto`` to infer it.
        seed: what it was drawn from, or None for the user's data.
        labels: each row's label in the user's data, None where it has none.
        measures_effect: whether the adapter's own effect is measured on it, which takes one more run of the reference.
        prompt: of a model that generates: how many of the columns are its rows' prompts, padded on either side; the
            others hold the tokens that are fed after it, one by one.
        greedy: whether those are the ones that the bundle chooses; they are `CHOSEN` until it has.
        inside: whether the modules are compared too; of a very long row the outputs are.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    seed: int | None = None
    labels: tuple[Any, ...] = field(default=())
    measures_effect: bool = False
    prompt: int | None = None
    greedy: bool = False
    inside: bool = True

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return len(self.tasks)

    @property
    def length(self) -> int:
        """How many columns its tokens have; of an encoder-decoder, those of the answer."""
        tokens = self.arrays.get(ANSWER_IDS, next(iter(self.arrays.values())))
        return int(tokens.shape[1])

    @property
    def kept(self) -> np.ndarray | None:
        """bool [rows, length], the text's positions that are not padding; None where there is no mask."""
        mask = self.arrays.get("attention_mask")
        return None if mask is None else mask.astype(bool)


@dataclass(frozen=True)
class Vocabulary:
    """What tokens the model reads.

    Attributes:
        size: number of token ids.
        types: number of token types.
        longest: largest number of tokens in a row.
        pad: the padding id.
        first, last: ids that open and close a row, None where unknown.
    """

    size: int
    types: int
    longest: int
    pad: int
    first: int | None
    last: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any], longest: int | None) -> Vocabulary:
        """From the base's ``config.json``, and its longest row; None: it has no end."""
        settings = full_config(config)
        size = _number(settings, "vocab_size") or 2

        def special(*keys: str) -> int | None:
            found = next((value for key in keys if type(value := getattr(settings, key, None)) is int), None)
            return found if found is not None and 0 <= found < size else None

        return cls(
            size=size,
            types=_number(settings, "type_vocab_size") or 1,
            longest=longest or UNENDING,
            pad=special("pad_token_id") or 0,
            first=special("cls_token_id", "bos_token_id"),
            last=special("sep_token_id", "eos_token_id"),
        )


def generated(manifest: Manifest, vocabulary: Vocabulary, names: Sequence[str]) -> list[Batch]:
    """The batches of a validation without data.

    Every task alone in one row; two rows of every task mixed in one batch, padded; one of every task, of one
    length; rows of one token and of two; one long row, and one as long as the base reads. For a bundle of a single
    task, several rows of it take the place of the mixtures.

    Args:
        manifest: of the bundle, for its inputs.
        vocabulary: of the base.
        names: the rows' tasks: the bundle's, and ``auto`` where it infers.

    Raises:
        NotSupportedError: the graph has an input that eptx does not know how to fill.
    """
    plans: list[tuple[str, tuple[str, ...], int, bool]] = [(f"{name} alone", (name,), _LENGTH, False) for name in names]
    if len(names) > 1:
        plans.append((f"{_MIXED}, padded", tuple(names) * 2, _MANY_LENGTH, True))
        plans.append((_MIXED, tuple(reversed(names)) + tuple(names[:1]), _LENGTH, False))
    else:
        plans.append((f"{_MANY}, padded", tuple(names) * 6, _MANY_LENGTH, True))
        plans.append((_MANY, tuple(names) * 4, _LENGTH, False))
    plans.append(("long", (names[0],), _LONG, False))
    if any(spec.name in _TEXT for spec in manifest.inputs):
        plans.append(("one token", _some(names, 2), 1, False))
        plans.append(("two tokens", (names[0],) * _MOST_ROWS, 2, False))
        if _LONG < vocabulary.longest < UNENDING:
            plans.append(("longest", (names[0],), min(vocabulary.longest, MOST), False))
    return [
        _draw(
            manifest,
            vocabulary,
            Batch(name, {}, tasks, seed, measures_effect=name in (_MIXED, _MANY), inside=length <= INSIDE),
            length,
            padded,
        )
        for seed, (name, tasks, length, padded) in enumerate(plans)
    ]


def redraw(batch: Batch, manifest: Manifest, vocabulary: Vocabulary) -> Batch:
    """Another batch of the same shape and tasks, from the next seed."""
    assert batch.seed is not None
    length = next((a.shape[1] for name, a in batch.arrays.items() if name in _TEXT), 0)
    kept = batch.kept
    padded = kept is not None and not kept.all()
    return _draw(manifest, vocabulary, replace(batch, seed=batch.seed + 1000), length, padded)


def untried(manifest: Manifest, vocabulary: Vocabulary) -> list[Part]:
    """What no batch of `generated` reaches, and why."""
    if not MOST < vocabulary.longest < UNENDING or all(spec.name not in _TEXT for spec in manifest.inputs):
        return []
    name = f"rows of {MOST + 1} to {vocabulary.longest} tokens"
    return [Part(name, "neither", why=f"the longest row that is tried has {MOST} tokens")]


def _some(names: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(islice(cycle(names), count))


def rows_alone(batch: Batch) -> Iterator[Batch]:
    """A batch without padding as it is; of a padded one, each row by itself."""
    kept = batch.kept
    if kept is None or kept.all():
        yield batch
        return
    for row in range(batch.rows):
        columns, prompt = np.flatnonzero(kept[row]), batch.prompt
        arrays = {
            name: array[row : row + 1] if name == ANSWER_IDS else array[row : row + 1, columns]
            for name, array in batch.arrays.items()
        }
        if prompt is not None and ANSWER_IDS not in batch.arrays:
            prompt = int((columns < prompt).sum())
        yield replace(batch, arrays=arrays, tasks=batch.tasks[row : row + 1], labels=(), prompt=prompt)


def task_ids(batch: Batch, ids: Mapping[str, int]) -> np.ndarray:
    """int64 [rows], -1 where the task is to be inferred."""
    return np.array([INFER if name == AUTO_TASK else ids[name] for name in batch.tasks], dtype=np.int64)


def bundle_ids(manifest: Manifest, batch: Batch) -> np.ndarray | None:
    """The rows' tasks as the bundle has them, int64 [rows]; None where it takes none.

    Raises:
        BundleError: it does not have one of them.
    """
    if all(spec.name != TASK_ID for spec in manifest.inputs):
        return None
    known = {task.name: task.id for task in manifest.tasks}
    unknown = next((name for name in batch.tasks if name != AUTO_TASK and name not in known), None)
    if unknown is not None:
        raise BundleError(f"eptx.json names no task {unknown!r}, which the adapter has")
    return task_ids(batch, known)


def _draw(manifest: Manifest, vocabulary: Vocabulary, batch: Batch, length: int, padded: bool) -> Batch:
    rng = np.random.default_rng([20260, batch.seed or 0])
    length = min(length, vocabulary.longest)
    lengths = np.full(batch.rows, length)
    if padded and length > 3:
        lengths[1:] = rng.integers(3, length + 1, batch.rows - 1)
    arrays = {
        spec.name: _fill(spec, vocabulary, rng, batch.rows, lengths).astype(spec.dtype)
        for spec in manifest.inputs
        if spec.name != TASK_ID
    }
    return replace(batch, arrays=arrays)


def _fill(
    spec: TensorSpec, vocabulary: Vocabulary, rng: np.random.Generator, rows: int, lengths: np.ndarray
) -> np.ndarray:
    length = int(lengths.max())
    positions = np.arange(length)
    kept = positions < lengths[:, None]
    if spec.name == "input_ids":
        return _tokens(vocabulary, rng, kept)
    if spec.name == "attention_mask":
        return kept
    if spec.name == "token_type_ids":
        second = rng.integers(1, length + 1, (rows, 1)) <= positions
        return (second & kept & (vocabulary.types > 1)).astype(np.int64)
    if spec.name == "position_ids":
        return np.broadcast_to(positions, (rows, length))
    if spec.name == "pixel_values":
        if not all(isinstance(dim, int) for dim in spec.shape[1:]):
            raise NotSupportedError(
                f"graph input {spec.name} has free sizes {list(spec.shape)}: validation needs fixed ones"
            )
        return rng.standard_normal((rows, *(int(dim) for dim in spec.shape[1:])))
    raise NotSupportedError(f"graph input {spec.name!r} is neither text nor an image: validation cannot fill it")


def _tokens(vocabulary: Vocabulary, rng: np.random.Generator, kept: np.ndarray) -> np.ndarray:
    """Random tokens, never the padding id among them: RoBERTa tells positions by it."""
    ids = rng.integers(0, max(vocabulary.size - 1, 1), kept.shape)
    ids += ids >= vocabulary.pad
    if vocabulary.first is not None:
        ids[:, 0] = vocabulary.first
    if vocabulary.last not in (None, vocabulary.pad):
        ids[np.arange(len(ids)), kept.sum(axis=1) - 1] = vocabulary.last
    return np.where(kept, np.minimum(ids, vocabulary.size - 1), vocabulary.pad)


def _number(settings: Any, key: str) -> int | None:
    value = getattr(settings, key, None)
    return value if type(value) is int and value > 0 else None

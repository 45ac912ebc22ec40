"""An answer of ``eptx run`` as one line for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from eptx.bundle import Manifest
from eptx.cli.parts.common import printable
from eptx.cli.parts.rows import IMAGE

#: Longer names of tasks and labels are printed whole, and move the columns behind them.
_WIDEST = 32
#: How many numbers of an embedding, or of what an encoder gives, are shown.
SHOWN = 4


class Lines:
    """The lines of one bundle's answers: the task, what is said, and the text. Columns are as wide as the names of the
    bundle's tasks and labels, so that every line may be printed when it is there.

    Args:
        manifest: of the bundle.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._task = _widest(task.name for task in manifest.tasks)
        self._label = _widest(name for task in manifest.tasks for name in task.label_names or ("",))

    def __call__(self, result: dict[str, Any]) -> str:
        """An answer, as `eptx.cli.parts.answers` makes it, on a line."""
        text = " | ".join(result[key] for key in ("text", "text_pair", IMAGE) if key in result)
        said = _of_text(result)
        if said is not None:
            return "\t".join(map(printable, (result["task"], *said, text)))
        cells = (printable(result["task"]).ljust(self._task), *self._cells(result), printable(text))
        return "  ".join(cells)

    def _cells(self, result: dict[str, Any]) -> Iterator[str]:
        vector = result.get("embedding") or result.get("features")
        if vector is not None:
            yield _vector(vector)
        elif isinstance(result["label"], list | tuple):
            yield _several(result)
        else:
            # a number stands where others have their label
            label, score = result["label"], result["score"]
            value = isinstance(label, float)
            yield (number(label) if value else printable(_shown(label))).ljust(self._label)
            yield (number(score) if score is not None else "").ljust(len(number(0.0)))


def number(value: float | None) -> str:
    """A number with four decimals; None stands for NaN."""
    return "nan" if value is None else f"{value:.4f}"


def _of_text(result: dict[str, Any]) -> list[str] | None:
    """What is said in words, which no column is wide enough for."""
    if "entities" in result:
        found = result["entities"]
        return [", ".join(f"{e['label']}: {e['word']}" for e in found), _numbers(e["score"] for e in found)]
    if "answer" in result:
        score = result.get("score")
        return [result["answer"], *([number(score)] if score is not None else [])]
    return None


def _several(result: dict[str, Any]) -> str:
    """Several labels, each with its own score where there is one; or values; or a label of each token."""
    label, likely = result["label"], {each["label"]: each["score"] for each in result.get("scores", ())}
    said = (number(each) if isinstance(each, float) else _named(each, likely) for each in label)
    return ", ".join(said) or "none"


def _named(label: Any, likely: dict[Any, float | None]) -> str:
    name = printable(_shown(label))
    return f"{name} {number(likely[label])}" if not isinstance(label, list | tuple) and label in likely else name


def _vector(vector: Any) -> str:
    """An embedding, or the first numbers of what an encoder gives."""
    if isinstance(vector, dict):
        name, shape, first = vector["output"], vector["shape"], vector["first"]
    else:
        name, shape, first = "embedding", [len(vector)], vector
    return f"{name} {shape} {_numbers(first[:SHOWN])} ..."


def _numbers(values: Iterable[float | None]) -> str:
    return " ".join(map(number, values))


def _shown(label: Any) -> str:
    """A label; several, or one of each token, separated by commas."""
    return ", ".join(map(_shown, label)) if isinstance(label, list | tuple) else str(label)


def _widest(names: Iterable[str]) -> int:
    return max((len(printable(name)) for name in names if len(name) <= _WIDEST), default=0)

"""One word for one thing, as the field writes it: old names do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.modules import product

#: Words that no name holds -> the word to use.
OLD_WORDS = {
    r"quantis\w*": "quantize",
    r"tokenis\w*": "tokenize",
    r"normalis\w*": "normalize",
    r"optimis\w*": "optimize",
    r"serialis\w*": "serialize",
    r"truths?": "reference",
    r"sharpen\w*": "float activations",
    r"twins?": "fp32 baseline",
    r"ledgers?": "trial cache",
}
#: Names of modules and classes that are gone -> the name to use.
OLD_NAMES = {
    "answering": "postprocess",
    "asking": "reference_runner",
    "Asked": "ReferenceRunner",
    "choices": "router_ties",
    "expect": "expectation",
    "judge": "compare",
    "owners": "weight_matching",
    "Intake": "BodyReader",
    "merging": "collate",
    "Merger": "Collator",
    "packing": "scheduler",
    "preparing": "preprocess",
    "repeating": "retry",
    "ServedModel": "LocalModel",
    "say": "phrases",
    "Writer": "TextGenerator",
    "writing": "prompt_job",
    "Writing": "GenerateService",
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def given_by(path: str, tree: ast.Module) -> Iterator[str]:
    """The names of a module, of its packages, and of its classes."""
    yield from Path(path).with_suffix("").parts
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def used_by(tree: ast.Module) -> Iterator[str]:
    """Every other name in a module: functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def better(name: str) -> Iterator[str]:
    """What to say in place of the old words in a name."""
    for word in map(str.lower, _WORD.findall(name)):
        yield from (new for old, new in OLD_WORDS.items() if re.fullmatch(old, word))


def test_old_words_do_not_come_back() -> None:
    found = {
        f"{path}: {name}, say {new}"
        for path, tree in product().items()
        for name in {*given_by(path, tree), *used_by(tree)}
        for new in better(name)
    }
    assert sorted(found) == []


def test_old_modules_and_classes_do_not_come_back() -> None:
    found = {
        f"{path}: {name}, say {OLD_NAMES[name]}"
        for path, tree in product().items()
        for name in {*given_by(path, tree)} & OLD_NAMES.keys()
    }
    assert sorted(found) == []


@pytest.mark.parametrize(
    "name", ["find_truth", "_sharpened", "fp32_twin", "TrialLedger", "QUANTISED", "tokenise", "Twins"]
)
def test_an_old_word_is_seen(name: str) -> None:
    assert list(better(name))


def test_an_old_class_is_seen() -> None:
    assert set(given_by("calibration/asking.py", ast.parse("class Writer: pass"))) >= {"asking", "Writer"}
    assert not list(better("tokenizer")) and not list(better("betwixt"))

"""Sixty honest bundles pass with room to spare: methods, modes, stored types, seeds and bases of every kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from eptx.bundle import Bundle
from eptx.calibration.quantize import Range
from eptx.exporter import ExportOptions, Route
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import CONFIG, add_heads, write_ept, write_lora, write_tucka
from tests.exporter.validation.workshop import worst
from tests.exporter.validation.wrong.bases import WIDTH, Bases
from tests.support.quantized import Choice, quantized

Method = Literal["lora", "ept", "tucka"]
#: What honest bundles stay below.
MARGIN = LIMIT / 2
_ROUTES = {"x": Route(0, (0.6, 0.4)), "y": Route(2, (0.3, 0.7))}
_BARE = "bert bare"
_SCHEMES: tuple[Choice, ...] = ("int8", "int8-static", "int8-blocks", "int4-blocks")


@dataclass(frozen=True)
class Case:
    """One honest bundle.

    Attributes:
        base: of models.py.
        method: of its adapters.
        options: of the export.
        pooling: what its task heads read, if it has any.
        scheme: of every product, if they are quantized.
    """

    base: str
    method: Method
    options: dict[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    scheme: Choice | None = None

    def __str__(self) -> str:
        said = [str(self.options.get(key, "")) for key in ("mode", "routing", "precision")]
        return "-".join(part for part in (self.base, self.method, *said, self.pooling, str(self.scheme or "")) if part)


def _case(
    base: str, method: Method, mode: str, *, pooling: str | None = None, scheme: Choice | None = None, **more: Any
) -> Case:
    if method == "ept":
        more |= {"top_k": 2} | ({"task": "task1"} if mode == "static" and pooling is None else {})
        more |= {"task": "b"} if mode == "static" and pooling is not None else {}
    if method == "tucka" and mode != "dynamic":
        more |= {"routes": _ROUTES} | ({"task": "y"} if mode == "static" else {})
    return Case(base, method, {"mode": mode, **more}, pooling, scheme)


def _cases() -> Iterator[Case]:
    for base in ("bert", "roberta", "vit"):
        yield _case(base, "lora", "conditioned")
        yield _case(base, "lora", "static", precision="fp16")
        yield _case(base, "ept", "conditioned", precision="fp16")
        yield _case(base, "ept", "dynamic")
        yield _case(base, "ept", "static")
        yield _case(base, "tucka", "dynamic", routing="row")
        yield _case(base, "tucka", "dynamic", routing="batch", precision="fp16")
        yield _case(base, "tucka", "conditioned")
    for method in ("lora", "ept"):
        yield _case("deberta", method, "conditioned")  # type: ignore[arg-type]
        yield _case("deberta", method, "static", precision="fp16")  # type: ignore[arg-type]
    for pooling in ("pooler", "first", "mean"):
        yield _case(_BARE, "ept", "conditioned", pooling=pooling)
        yield _case(_BARE, "ept", "dynamic", pooling=pooling, precision="fp16")
        yield _case(_BARE, "ept", "static", pooling=pooling)
    for scheme in _SCHEMES:
        yield _case(_BARE, "ept", "conditioned", pooling="pooler", scheme=scheme)
        yield _case(_BARE, "ept", "static", pooling="first", scheme=scheme)
    yield _case(_BARE, "lora", "conditioned", scheme="int8")
    yield _case(_BARE, "tucka", "conditioned", scheme="int4-blocks")
    for base in ("llama", "qwen2"):
        yield _case(base, "ept", "conditioned")
        yield _case(base, "ept", "dynamic", precision="int4")
        yield _case(base, "lora", "static", precision="fp16")
        yield _case(base, "tucka", "dynamic", routing="prompt")
    yield _case("llama", "lora", "conditioned", precision="int4")
    yield _case("mistral", "ept", "conditioned")
    yield _case("mistral", "tucka", "conditioned", precision="fp16")
    yield _case("gemma2", "lora", "conditioned")
    yield _case("gemma2", "ept", "static")
    yield _case("t5", "lora", "conditioned")
    yield _case("t5", "ept", "dynamic", precision="fp16")
    yield _case("t5", "tucka", "dynamic", routing="row")
    yield _case("bert plain", "lora", "conditioned")
    yield _case("bert plain", "ept", "static", precision="fp16")
    yield _case("bert bfloat16", "lora", "conditioned")
    yield _case("llama bfloat16", "ept", "conditioned")


CASES = tuple(_cases())


def _train(bases: Bases, case: Case, seed: int) -> list[Path]:
    """Adapters of a strength, rank and choice of modules that differ from case to case."""
    shop, shapes = bases.shop(case.base), bases.shapes(case.base)
    # an update that is far smaller than a step of its weight cannot be seen
    strength = (0.03, 0.1, 0.3)[seed % 3] if case.scheme is None else 0.3
    if case.method == "lora":
        few = dict(list(shapes.items())[::2])
        first = write_lora(shop.path(), shapes, seed=seed, rank=1 + seed % 4, strength=strength)
        if case.options["mode"] == "static":
            return [first]
        return [first, write_lora(shop.path(), few, seed=seed + 500, rank=2, strength=strength)]
    if case.method == "tucka":
        return [write_tucka(shop.path(), shapes, seed=seed, tasks=("x", "y"), rank=4, strength=strength)]
    sizes = ((2, 2, 4, 4), (3, 2, 5, 3))[seed % 2]
    adapter = write_ept(shop.path(), shapes, seed=seed, sizes=sizes, rank=4, strength=strength)
    if case.pooling is not None:
        add_heads(adapter, {"a": 2, "b": 5, "c": 1}, WIDTH, pooling=case.pooling)
    return [adapter]


def _note_bare_class(adapters: Sequence[Path]) -> None:
    """As PEFT notes it down of adapters that were trained on the model without a head."""
    for folder in adapters:
        config = json.loads((folder / CONFIG).read_text())
        noted = {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}
        (folder / CONFIG).write_text(json.dumps(config | {"auto_mapping": noted}))


def _export(bases: Bases, case: Case, adapters: Sequence[Path]) -> Bundle:
    shop = bases.shop(case.base)
    if case.scheme is not None:
        options = ExportOptions(base_onnx=shop.onnx, **case.options)
        return quantized(shop.base, adapters, shop.path(), options, case.scheme, bounds=Range(-12.0, 12.0))
    bundle = shop.export(adapters, **case.options)
    return bundle


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: f"{index}-{CASES[index]}")
def test_no_false_alarm(bases: Bases, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[index]
    if case.base == "t5":
        monkeypatch.setattr("eptx.exporter.steps.load.load_encoder_decoder", bases.kept)
    adapters = _train(bases, case, 100 + index)
    if case.base == _BARE and case.pooling is None:
        _note_bare_class(adapters)
    bundle = _export(bases, case, adapters)
    report = bases.shop(case.base).validate(bundle)
    shutil.rmtree(bundle.path)
    assert report.passed, report.reason
    print(f"margin {worst(report):.2f} of {LIMIT:g}: {case}")
    assert worst(report) < MARGIN
    said = [warning for warning in report.warnings if "was measured on random inputs" not in warning]
    assert said == []


def test_there_are_sixty() -> None:
    assert len(CASES) >= 60

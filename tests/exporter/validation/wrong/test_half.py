"""Bundles that compute in float16, for CUDA: honest ones pass, and what is wrong by more than rounding still fails.

The CPU runs them, with casts around what it has no float16 kernel for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import eptx
from eptx.exporter.bases.products.products import find_products
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.workshop import worst
from tests.exporter.validation.wrong.bases import Bases
from tests.exporter.validation.wrong.kind import Kind
from tests.exporter.validation.wrong.kinds import KINDS

BUNDLES = (
    *("bert", "bert static", "bert tucka", "bert hydra", "bert lily", "bert mixlora", "bert tucka frozen"),
    *("heads", "heads mean", "roberta", "deberta", "vit"),
)
#: None of them is a change of a hundredth: that is rounding in float16.
WRONG = (
    *("one module's update doubled", "ranks out of order", "one task without update in a module"),
    *("a module without its operator", "another expert", "a router's gate"),
    *("centroids out of order", "alpha doubled", "a token's gate", "a row's gate", "one expert of two of a token"),
    *("body of LowRankDelta", "body of PyramidRouter", "body of TuckerDelta", "two groups swapped in a module"),
    *("two labels of a head swapped", "heads on the first token", "body of TopExperts", "float16 overflown"),
)
CASES = [kind for kind in KINDS if kind.name in WRONG and kind.bundle in (*BUNDLES, "bert fp16")]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bases]:
    torch.set_num_threads(1)
    yield Bases(tmp_path_factory.mktemp("halves"), provider="cuda", precision="fp16")


@pytest.mark.parametrize("name", BUNDLES)
def test_honest(halves: Bases, name: str) -> None:
    bundle = halves.bundle(name)
    graph = ir.load(bundle.model).graph
    products = [product.node for product in find_products(graph)]
    halved = [
        node for node in products if all(value.dtype == ir.DataType.FLOAT16 for value in node.inputs[:2] if value)
    ]
    assert len(halved) >= len(bundle.manifest.modules)
    assert {value.dtype for value in graph.outputs} <= {ir.DataType.FLOAT, ir.DataType.INT64}
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason
    assert worst(report) < 3


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: f"{kind.bundle}: {kind.name}")
def test_wrong(halves: Bases, cli: Cli, kind: Kind) -> None:
    folder = halves.copy(kind.bundle, kind.damage)
    code, _, err = cli("validate", "-q", folder, "--provider", "cpu")
    reason = "".join(line for line in err.splitlines() if line.startswith("error: "))
    assert code == 4, f"exit code {code}; {reason or err}"
    assert re.search(kind.names, reason), f"{kind.names!r} is not named: {reason}"


def test_the_kinds_are_there() -> None:
    assert {kind.name for kind in CASES} == set(WRONG)


def test_what_transformers_keeps_in_float32_is_only_stored_so(tmp_path: Path) -> None:
    bundle = Bases(tmp_path, provider="cuda", precision="fp16").export("t5")
    graph = ir.load(bundle.model).graph
    casts = [node.inputs[0] for node in graph if node.op_type == "Cast"]
    assert any(value is not None and value.dtype == ir.DataType.FLOAT16 for value in casts)
    read = [product.node.inputs[0] for product in find_products(graph)]
    assert all(value is not None and value.dtype == ir.DataType.FLOAT for value in read)
    assert eptx.validate(bundle.path).passed

"""What a validation leaves behind, and how the command tells it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import onnxruntime
import pytest

from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.runtime.validation.distance import LIMIT
from tests.exporter.validation.adapters import changed, linear_shapes, scale_kernel, write_ept
from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.workshop import Workshop

QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def adapter(bert: Workshop) -> Path:
    return write_ept(bert.path(), linear_shapes(bert.base, ("query", "value")), seed=1, tasks=2)


def test_the_report_is_the_same_every_time(bert: Workshop, adapter: Path) -> None:
    bundle = bert.export(adapter, mode="dynamic", top_k=2)
    contents = []
    for _ in range(2):
        report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
        page = (bundle.path / "report.html").read_text()
        saved = json.loads((bundle.path / "validation.json").read_bytes())
        assert saved == report.to_json()
        contents.append([saved | {"seconds": None}, re.sub(r"<h2>Seconds</h2>.*?</table>", "", page, flags=re.S)])
    assert contents[0] == contents[1]
    assert saved["seconds"]["running the reference"] > 0
    assert saved["passed"] is True
    assert saved["limit"] == LIMIT
    tasks = {task["task"]: task for task in saved["providers"][0]["tasks"]}
    assert list(tasks) == ["task0", "task1", "base", "auto"]
    measured = tasks["task0"]["modules"][QUERY]
    assert 0 < measured["noise"] < measured["effect"] < measured["scale"]
    assert tasks["base"]["effect_ratio"] is None


class _Links(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in ("script", "link", "img", "iframe") else []
        self.found += [name for name, _ in attrs if name in ("src", "href", "onclick")]


def test_the_page_loads_nothing_and_escapes_names(bert: Workshop, adapter: Path) -> None:
    bundle = bert.export(adapter, mode="conditioned", top_k=2, tasks=["<b>bold</b>", "a&b"])
    bert.validate(bundle)
    page = (bundle.path / "report.html").read_text()
    links = _Links()
    links.found = []
    links.feed(page)
    assert links.found == []
    assert 'http-equiv="Content-Security-Policy"' in page
    assert "prefers-color-scheme: dark" in page
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "a&amp;b" in page


def test_a_passing_bundle(bert: Workshop, adapter: Path, cli: Cli) -> None:
    bundle = bert.export(adapter, mode="conditioned", top_k=2)
    code, out, err = cli("validate", bundle.path, "--provider", "cpu")
    assert code == 0
    assert "cpu, functions: passed; worst" in out
    assert "running the reference in float64" in err
    code, out, err = cli("validate", bundle.path, "--provider", "cpu,cpu", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert out.encode() == (bundle.path / "validation.json").read_bytes()


def test_a_failing_bundle(bert: Workshop, adapter: Path, cli: Cli) -> None:
    mutant = changed(adapter, bert.path(), scale_kernel(QUERY, 0, 3.0))
    for expert in range(1, 8):
        mutant = changed(mutant, bert.path(), scale_kernel(QUERY, expert, 3.0))
    bundle = bert.export(mutant, mode="conditioned", top_k=2)
    code, out, err = cli("validate", bundle.path, "--adapter", adapter, "--top-k", 2, "--quiet")
    assert code == 4
    assert "cpu, functions: failed" in out
    warning, error = err.splitlines()
    assert warning.startswith("warning: the adapter is not the one that the bundle was made from")
    assert error.startswith(f"error: provider cpu, functions: task task0 fails at first drifting module {QUERY}: ")
    assert json.loads((bundle.path / "validation.json").read_text())["warnings"] == [warning.removeprefix("warning: ")]


def test_sources_that_moved(bert: Workshop, adapter: Path, cli: Cli) -> None:
    moved = Path(shutil.copytree(adapter, bert.path()))
    bundle = bert.export(moved, mode="static", task="second", tasks=["first", "second"], top_k=2)
    shutil.rmtree(moved)
    code, out, err = cli("validate", bundle.path, "--quiet")
    assert (code, out) == (2, "")
    assert err == f"error: the adapter that the bundle was made from is not at {moved.as_posix()}: give --adapter DIR\n"
    code, _, err = cli("validate", bundle.path, "--quiet", "--adapter", adapter, "--base", bert.base)
    assert (code, err) == (0, "")


def test_a_base_that_differs_is_a_warning(bert: Workshop, adapter: Path, cli: Cli) -> None:
    other = Path(shutil.copytree(bert.onnx.parent, bert.path(), ignore=shutil.ignore_patterns("[0-9]*")))
    with (other / "base.onnx").open("ab") as file:
        file.write(b"\x12\x01x")  # another producer's name
    bundle = bert.export(adapter, mode="conditioned", top_k=2)
    code, _, err = cli("validate", bundle.path, "--quiet", "--base-onnx", other / "base.onnx")
    assert code == 0
    assert err.startswith("warning: the base is not the one that the bundle was made from")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has CUDA")
def test_a_provider_that_is_not_here(bert: Workshop, adapter: Path, cli: Cli) -> None:
    bundle = bert.export(adapter, mode="conditioned", top_k=2)
    code, out, err = cli("validate", bundle.path, "--provider", "cuda", "--quiet")
    assert (code, out) == (5, "")
    assert err.startswith("error: provider cuda: ")
    assert len(err.splitlines()) == 1
    assert not (bundle.path / "validation.json").exists()


def test_damage_is_not_judged(bert: Workshop, adapter: Path, cli: Cli) -> None:
    bundle = bert.export(adapter, mode="conditioned", top_k=2)
    data = bundle.path / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    code, out, err = cli("validate", bundle.path, "--quiet")
    assert (code, out) == (3, "")
    assert err.startswith("error: model.onnx.data: ")

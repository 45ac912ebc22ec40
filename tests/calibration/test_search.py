"""The search: what it finds, keeps and refuses, on a model with planted damage."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eptx.calibration import Search, calibrate, calibrate_bundle, export_bundle
from eptx.calibration.run import calibrating
from eptx.calibration.search.evaluator import Evaluator
from eptx.calibration.search.trial_cache import FILE, TrialCache
from eptx.errors import UsageError, ValidationError
from eptx.exporter import ExportOptions, read_adapter
from eptx.progress import shown
from eptx.runtime import Session
from eptx.runtime.measure import Source
from tests.calibration.planted import LAYER, TASKS, answered_rows, planted_adapter, planted_base

Rows = list[dict[str, Any]]
_BUDGET = 5.0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Rows]:
    folder = tmp_path_factory.mktemp("planted")
    base = planted_base(folder / "base")
    adapter = planted_adapter(folder / "adapter", base)
    return base, adapter, answered_rows(base, adapter, folder / "fp32")


def _search(rows: Rows, **settings: Any) -> ExportOptions:
    search = Search(data=[Source(rows)], **({"max_drop": {None: _BUDGET}} | settings))
    return ExportOptions(mode="conditioned", top_k=2, precision=search)


@pytest.fixture(scope="module")
def said() -> io.StringIO:
    """What the progress of `calibration` says."""
    return io.StringIO()


@pytest.fixture(scope="module")
def estimates() -> dict[str, float | None]:
    """What it estimates: before it begins, and when it is done: of what it has measured, and of two trials more."""
    return {}


@pytest.fixture(scope="module")
def calibration(
    scene: tuple[Path, Path, Rows],
    said: io.StringIO,
    estimates: dict[str, float | None],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What ``calibrate`` gives, and task -> layer -> its sensitivity in 8 bits."""
    base, adapter, rows = scene
    read = read_adapter([adapter], top_k=2)
    with shown(stream=said), calibrating(base, read, _search(rows), tmp_path_factory.mktemp("study")) as running:
        estimates["before"] = running.evaluator.estimate([], 2, ["int8"])
        running.study()
        configs = list(running.found.trials)
        estimates["done"] = running.evaluator.estimate(configs, 0, ["int8"])
        estimates["more"] = running.evaluator.estimate(configs, 2, [])
        result = running.result().to_json()
        layers = [layer["name"] for layer in result["sensitivity"]["layers"]]
        moved = running.found.sensitivity["int8"]
        return result, {task: dict(zip(layers, own, strict=True)) for task, own in moved.items()}


@pytest.fixture(scope="module")
def studied(calibration: tuple[dict[str, Any], dict[str, dict[str, float]]]) -> dict[str, Any]:
    return calibration[0]


def _trial(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(trial for trial in result["trials"] if trial["name"] == name)


def _points(trial: Mapping[str, Any]) -> dict[str, float]:
    return {drop["task"]: drop["points"] for drop in trial["drops"]}


def test_the_planted_layer_ruins_one_task(studied: dict[str, Any]) -> None:
    points = _points(_trial(studied, "int8"))
    assert points["ruined"] > 25  # the damage is really there
    assert all(points[task] <= _BUDGET for task in TASKS[1:])  # and the other tasks' alone would not show it


def test_it_says_how_long_it_will_take_after_the_first_step(
    studied: dict[str, Any], said: io.StringIO, estimates: dict[str, float | None]
) -> None:
    lines = said.getvalue().splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("trying fp32"))
    assert re.fullmatch(r"about .* (s|min|h) left, up to .* where layers have to be kept in float16", lines[first + 1])
    spent = [float(s) for s in re.findall(r"^trying .*?(\d+\.\d) s$", said.getvalue(), re.MULTILINE)]
    assert len(spent) == len(studied["trials"])
    assert (estimates["before"], estimates["done"]) == (None, 0)
    assert estimates["more"] == pytest.approx(2 * sum(spent) / len(spent), rel=0.2, abs=0.2)


def test_the_planted_layer_is_found_by_name(
    calibration: tuple[dict[str, Any], dict[str, dict[str, float]]],
) -> None:
    moved = calibration[1]["ruined"]
    worst, second = sorted(moved, key=lambda name: -moved[name])[:2]
    assert worst == LAYER
    assert moved[worst] > 5 * moved[second]


def test_auto_keeps_the_planted_layer_and_nothing_it_need_not(scene: tuple[Path, Path, Rows], tmp_path: Path) -> None:
    base, adapter, rows = scene
    bundle = export_bundle(base, [adapter], tmp_path / "auto", _search(rows))
    result = json.loads((bundle.path / "calibration.json").read_text())
    chosen = _trial(result, result["chosen"])
    assert all(points <= _BUDGET for points in _points(chosen).values())
    assert bundle.manifest.quantization is not None
    kept = [name for name, scheme in bundle.manifest.quantization.products.items() if scheme == "fp16"]
    assert any(LAYER in name.replace("/", ".") for name in kept)
    better = [trial for trial in result["trials"] if trial["within"] and trial["bytes"] < chosen["bytes"]]
    assert better == []  # at least as good as everything else that it tried, the fixed settings among it
    assert sum(entry.size for entry in bundle.manifest.files.values()) == pytest.approx(chosen["bytes"], rel=0.02)
    assert not (tmp_path / "auto.calibration").exists()
    answers = Session(bundle).run({"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1, 1]]}, "ruined")
    assert answers.logits[0].shape == (3,)


def test_a_stated_budget_that_a_fixed_precision_breaks_leaves_no_bundle(
    scene: tuple[Path, Path, Rows], tmp_path: Path
) -> None:
    base, adapter, rows = scene
    with pytest.raises(ValidationError, match=r"ruined drops by \d+\.\d\d points of accuracy .* --precision auto"):
        export_bundle(base, [adapter], tmp_path / "int8", _search(rows, only="int8"))
    assert list(tmp_path.iterdir()) == []
    measured = export_bundle(base, [adapter], tmp_path / "int8", _search(rows, only="int8", max_drop={}))
    assert measured.manifest.precision == "int8"


def test_an_interrupted_search_goes_on_and_finds_the_same(
    scene: tuple[Path, Path, Rows], studied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, rows = scene
    out, done = tmp_path / "out", []
    measure = Evaluator._measure

    def interrupted(self: Evaluator, *args: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args)
        return measure(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            calibrate(base, [adapter], out, _search(rows))
    assert sorted(path.name for path in out.iterdir()) == [FILE]
    assert len((out / FILE).read_text().splitlines()) == 4  # what it is about, and three trials
    again: list[Any] = []
    monkeypatch.setattr(Evaluator, "_measure", lambda self, *args: again.append(args) or measure(self, *args))
    result = calibrate(base, [adapter], out, _search(rows)).to_json()
    assert len(again) == len(result["trials"]) - 3
    assert sorted(path.name for path in out.iterdir()) == ["calibration.json", "report.html"]
    assert _timeless(result) == _timeless(studied)


def _timeless(result: Mapping[str, Any]) -> Any:
    trials = [{k: v for k, v in t.items() if k not in ("milliseconds", "latency_ratio")} for t in result["trials"]]
    return {**result, "trials": trials}


def test_results_of_something_else_are_forgotten_and_half_a_line_is_dropped(tmp_path: Path) -> None:
    cache = TrialCache(tmp_path, "one")
    assert cache.get("a", lambda: 1) == 1
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"name": "b", "resu')
    assert TrialCache(tmp_path, "one").get("a", lambda: 2) == 1
    assert TrialCache(tmp_path, "one").get("b", lambda: 3) == 3
    other = TrialCache(tmp_path, "other")
    assert "a" not in other and other.mean_seconds("a") is None
    assert other.get("a", lambda: 4) == 4
    assert "a" in other and other.mean_seconds("a") is not None and other.mean_seconds("b") is None


def test_a_folder_with_something_else_is_left_alone(scene: tuple[Path, Path, Rows], tmp_path: Path) -> None:
    base, adapter, rows = scene
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        calibrate(base, [adapter], tmp_path, _search(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_bundle_is_measured_beside_what_is_tried(scene: tuple[Path, Path, Rows], tmp_path: Path) -> None:
    base, adapter, rows = scene
    bundle = export_bundle(
        base, [adapter], tmp_path / "int8", ExportOptions(mode="conditioned", top_k=2, precision="int8")
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    search = Search(data=[Source(tmp_path / "rows.jsonl")], max_drop={None: _BUDGET})
    result = calibrate_bundle(bundle.path, tmp_path / "study", search).to_json()
    own, same = _trial(result, "this bundle"), _trial(result, "int8")
    assert own["bytes"] == same["bytes"]
    assert own["drops"] == same["drops"]
    assert result["chosen"] != "this bundle"

"""Budgets, metrics and other settings of a calibration that make no sense, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.malformed.scene import Cli, Scene, leaves_nothing

ROWS = "".join(
    json.dumps({"task": task, "input_ids": [1, 2, 3 + i], "label": i % 2 if task != "stsb" else float(i)}) + "\n"
    for task in ("cola", "mnli", "stsb")
    for i in range(4)
)

#: what follows the data -> exit code and what the line says
SETTINGS: dict[str, tuple[int, str]] = {
    "--max-drop nan": (3, "--max-drop: nan is not a number of points, 0 or more"),
    "--max-drop cola=nan": (3, "--max-drop of cola: nan is not a number of points"),
    "--max-drop inf": (3, "inf is not a number of points"),
    "--max-drop=-1": (3, "-1.0 is not a number of points"),
    "--max-drop much": (3, "not 'much'"),
    "--max-drop rte=1": (3, "--max-drop names an unknown task 'rte'; there are cola, mnli, stsb"),
    "--metric cola": (2, "--metric 'cola': expected TASK=NAME"),
    "--metric rte=f1": (3, "--metric names an unknown task 'rte'"),
    "--metric cola=bleu": (3, "--metric cola: unknown metric 'bleu'; there are accuracy, matthews"),
    "--metric cola=pearson": (3, "--metric cola: pearson does not fit its answers; use accuracy or matthews or f1"),
    "--metric stsb=f1": (3, "--metric stsb: f1 does not fit its answers; use pearson or spearman"),
    "--rows 0": (2, "'--rows'"),
    "--rows many": (2, "'--rows'"),
    "--goal taste": (2, "'--goal'"),
    "--threads 0": (2, "'--threads'"),
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_setting(scene: Scene, tmp_path: Path, cli: Cli, settings: str) -> None:
    code, said = SETTINGS[settings]
    (scene.root / "rows.jsonl").write_text(ROWS)
    start = ["calibrate", "-q", scene.base, scene.ept, "--base-onnx", scene.onnx, "-o", scene.out / "study"]
    with leaves_nothing(scene.root):
        cli.refuses(code, said, *start, "--top-k", "2", "--data", scene.root / "rows.jsonl", *settings.split())


@pytest.mark.parametrize("setting", ["--max-drop 1", "--metric cola=f1", "--rows 9"])
def test_a_budget_without_data(scene: Scene, cli: Cli, setting: str) -> None:
    with leaves_nothing(scene.root):
        said = f"{setting.split()[0]} is about rows to measure on: give --calibration-data"
        cli.refuses(2, said, *scene.export_args("ept", f"--mode conditioned --top-k 2 --precision int8 {setting}"))


def test_what_is_calibrated(scene: Scene, cli: Cli) -> None:
    (scene.root / "rows.jsonl").write_text(ROWS)
    data = ["--data", scene.root / "rows.jsonl", "-o", scene.out / "study"]
    (scene.root / "bundle" / "model.onnx").write_bytes(b"x")
    with leaves_nothing(scene.root):
        cli.refuses(2, "Missing option '--data'", "calibrate", scene.base, scene.ept, "-o", scene.out / "study")
        cli.refuses(2, "give BASE and ADAPTER", "calibrate", scene.ept, *data)
        cli.refuses(2, "give one bundle, or BASE and ADAPTER", "calibrate", scene.bundle, scene.ept, *data)
        cli.refuses(3, "model.onnx", "calibrate", scene.bundle, *data)
        start = ["calibrate", "-q", scene.base, scene.ept, "--base-onnx", scene.onnx, "--top-k", "2"]
        cli.refuses(2, "holds something else", *start, "--data", scene.root / "rows.jsonl", "-o", scene.base)


def test_labels_are_looked_at_before_anything_is_kept(scene: Scene, cli: Cli) -> None:
    (scene.root / "rows.jsonl").write_text(ROWS.replace('"label": 1', '"label": 9'))
    settings = f"--mode conditioned --top-k 2 --precision int8 --calibration-data {scene.root}/rows.jsonl"
    with leaves_nothing(scene.root):
        cli.refuses(3, "rows.jsonl, line 2: a label of cola is 9, out of range", *scene.export_args("ept", settings))


def test_a_sound_calibration(scene: Scene, cli: Cli) -> None:
    (scene.root / "rows.jsonl").write_text(ROWS)
    start = ["calibrate", "-q", scene.base, scene.ept, "--base-onnx", scene.onnx, "--top-k", "2"]
    done = cli(*start, "--data", scene.root / "rows.jsonl", "-o", scene.out / "study", "--max-drop", "100")
    assert done.code == 0, done
    assert done.err == ""
    assert done.out.startswith("Chosen: ")
    result = json.loads((scene.out / "study" / "calibration.json").read_text())
    assert result["tasks"] == ["cola", "mnli", "stsb"]
    assert {trial["name"] for trial in result["trials"]} >= {"fp32", "fp16", "int8", "int8-static"}
    assert "<html" in (scene.out / "study" / "report.html").read_text()

"""A search whose process is killed, again and again, ends as one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eptx.bundle import read_bundle
from eptx.calibration.search.trial_cache import FILE
from tests.malformed.data.test_budgets import ROWS
from tests.malformed.scene import Scene, make_scene


def test_a_search_that_is_killed_goes_on(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (scene.root / "rows.jsonl").write_text(ROWS)
    whole, killed = scene.out / "whole", scene.out / "killed"
    assert _search(scene, whole).wait(120) == 0
    ledger, known = killed.with_name("killed.calibration") / FILE, 0
    for _ in range(2):
        process = _search(scene, killed)
        while process.poll() is None and _lines(ledger) <= known + 1:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not killed.exists()  # the bundle is there when the search is done, and not before
        assert _lines(ledger) > known  # it went on, and did not begin anew
        known = _lines(ledger)
    assert _search(scene, killed).wait(120) == 0
    assert sorted(path.name for path in scene.out.iterdir()) == [
        "killed",
        "killed.sources.json",
        "whole",
        "whole.sources.json",
    ]
    assert _table(killed) == _table(whole)
    manifests = [read_bundle(path).manifest for path in (whole, killed)]
    assert manifests[0].files == manifests[1].files
    assert manifests[0].quantization == manifests[1].quantization


def _search(scene: Scene, out: Path) -> subprocess.Popen[bytes]:
    settings = (
        f"--mode conditioned --top-k 2 --precision auto --max-drop 100 --calibration-data {scene.root}/rows.jsonl"
    )
    files = [scene.base, scene.ept, "--base-onnx", scene.onnx, "-o", out]
    command = [sys.executable, "-m", "eptx", "export", "-q", *map(str, files), *settings.split()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONSAFEPATH": "1"})


def _lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _table(bundle: Path) -> list[dict[str, Any]]:
    """All that was tried, but the times."""
    trials = json.loads((bundle / "calibration.json").read_text())["trials"]
    return [{k: v for k, v in trial.items() if k not in ("milliseconds", "latency_ratio")} for trial in trials]

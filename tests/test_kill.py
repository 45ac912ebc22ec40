"""An export killed at any point leaves the old bundle, the new one or none, and the next one cleans up.

Run as a script, this file is the export that gets killed: it exports once to warm up, then forks a child for
every point. A point is a line of the code that writes and publishes, or a file operation that the interpreter
audits anywhere else; the child kills itself there.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import eptx
from tests.malformed.scene import Scene, make_scene

SPREAD = 10
#: What is at the target before, and the states that a kill may leave.
STARTS = {
    "a bundle": {"old", "new"},
    "a bundle, where folders cannot be exchanged": {"old", "new", "absent"},
    "nothing": {"absent", "new"},
}
_TRACED = ("publish.py", "_reader.py", "_writer.py", "_files.py", "write.py")
_AUDITED = ("os.", "shutil.", "open", "ctypes.", "fcntl.")


def test_killed_at_any_point(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    package = Path(eptx.__file__).parent.parent  # type: ignore[arg-type]
    paths = [str(package), str(root), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert len(kills) >= 50
    for kill in kills:
        assert kill["state"] in STARTS[kill["start"]], kill
        assert kill["signal"] == signal.SIGKILL, kill
        assert kill["next"] == ["b", "b.sources.json"], kill
    for start, states in STARTS.items():
        assert {kill["state"] for kill in kills if kill["start"] == start} == states, (start, kills)


class Points:
    """Counts the points that this process passes, and ends it at one of them.

    Args:
        last: the point to end at, counted from 1; None to only write down what they are.
    """

    def __init__(self, last: int | None) -> None:
        self.seen: list[str] = []
        self._last = last
        self._counting = False

    def start(self) -> None:
        sys.addaudithook(self._audit)
        sys.settrace(self._call)
        self._counting = True

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self._counting and event.startswith(_AUDITED):
            self._pass(event)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.endswith(_TRACED) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "line":
            self._pass(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return self._line

    def _pass(self, what: str) -> None:
        self.seen.append(what)
        if len(self.seen) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(run: Callable[[Points], None], last: int | None) -> tuple[int, list[str]]:
    """Runs something in a fork of this process, killed at its ``last`` point.

    Returns:
        the signal that ended it (0: none), and the points that it passed (if it was not killed).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        gc.disable()  # what the parent's threads belong to must not be torn down here
        points = Points(last)
        try:
            run(points)
        except BaseException as e:
            print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)
            os._exit(1)
        points.start = lambda: None  # type: ignore[method-assign]
        with os.fdopen(writer, "w") as pipe:
            json.dump(points.seen, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        raise SystemExit("the export failed by itself")
    return -status, json.loads(text) if text else []


def chosen(points: list[str]) -> list[int]:
    """Points spread over the whole export, and every one around those that put it in place."""
    total = len(points)
    spread = [1 + i * total // SPREAD for i in range(SPREAD)]
    switches = [i for i, what in enumerate(points, start=1) if what in ("os.rename", "ctypes.dlsym")]
    around = [i + by for i in switches for by in range(-2, 5) if 0 < i + by <= total]
    return sorted({*spread, *around})


def main(root: Path) -> None:
    """Kills exports to ``root``, and prints how each ended."""
    from eptx import read_bundle
    from eptx.calibration import export_bundle
    from eptx.exporter import ExportOptions
    from eptx.files import publish

    root.joinpath("scene").mkdir()
    scene: Scene = make_scene(root / "scene")
    target = scene.out / "b"
    options = ExportOptions(mode="conditioned", base_onnx=scene.onnx)
    exchange = publish._exchange

    def export(points: Points | None = None) -> None:
        if points is not None:
            points.start()
        export_bundle(scene.base, [scene.lora], target, options)

    def state() -> str:
        return {"ept": "old", "lora": "new"}[read_bundle(target).manifest.method] if target.exists() else "absent"

    def prepare(start: str) -> None:
        shutil.rmtree(target, ignore_errors=True)
        if start != "nothing":
            shutil.copytree(scene.bundle, target)
        publish._exchange = (lambda a, b: False) if start.endswith("exchanged") else exchange

    kills: list[dict[str, Any]] = []
    export()
    for start in STARTS:
        prepare(start)
        _, points = in_child(export, None)
        for number in chosen(points):
            prepare(start)
            killed_by, _ = in_child(export, number)
            kill = {"start": start, "at": points[number - 1], "number": number, "of": len(points)}
            kill |= {"signal": killed_by, "state": state(), "left": sorted(os.listdir(scene.out))}
            export()
            assert state() == "new"
            kills.append({**kill, "next": sorted(os.listdir(scene.out))})
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

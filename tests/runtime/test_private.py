"""ONNX Runtime keeps no record of what eptx runs, to send it to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.decoders import write_decoder_bundle
from tests.support.tiny_bundle import write_tiny

_PLAIN = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1] + '/model.onnx')"
_RUN = "import sys, eptx; eptx.Session(sys.argv[1]).run({'input_ids': [[2, 5, 3]]}, 'sst2')"
_GENERATE = "import sys, eptx; s = eptx.Session(sys.argv[1]); s.generate([[5, 6]], s.tasks[0], max_new_tokens=2)"
#: Whatever a command imports first.
_CLI = """
import contextlib, sys
from eptx.cli import main
bundle, sys.argv = sys.argv[1], ["eptx", "--version"]
with contextlib.suppress(SystemExit):
    main()
import onnxruntime
onnxruntime.InferenceSession(bundle + "/model.onnx")
"""


def _files(script: str, bundle: Path, home: Path, **more: str) -> list[Path]:
    """What a process leaves in a home of its own. (ONNX Runtime sends nothing where CI is set.)"""
    home.mkdir()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)} | more
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")} | own
    subprocess.run([sys.executable, "-c", script, str(bundle)], env=env, check=True, capture_output=True, timeout=120)
    return [path for path in home.rglob("*onnxruntime*") if path.is_file()]


def test_nothing_is_kept(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny").path
    decoder = write_decoder_bundle(tmp_path / "decoder").path
    if not _files(_PLAIN, tiny, tmp_path / "plain"):
        pytest.skip("this ONNX Runtime keeps no records by itself")
    for name, script, bundle in (("run", _RUN, tiny), ("generate", _GENERATE, decoder), ("cli", _CLI, tiny)):
        assert _files(script, bundle, tmp_path / name) == [], name
    assert _files(_RUN, tiny, tmp_path / "wanted", ORT_DISABLE_TELEMETRY="0")  # a user's own word counts

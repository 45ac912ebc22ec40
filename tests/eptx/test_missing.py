"""What is not there is said before anything large is imported, whatever is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.absent import without

#: Runs the command line, and prints which large packages it has imported.
_COMMAND = """
sys.argv = ["eptx", *{arguments!r}]
from eptx.cli import main
try:
    main()
except SystemExit as ended:
    print(ended.code, *sorted({large!r} & sys.modules.keys()))
"""
LARGE = {"torch", "transformers", "peft", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "matplotlib"}
#: What `eptx[cpu]` does not bring.
EXTRAS = {*LARGE - {"onnxruntime"}, "safetensors", "huggingface_hub", "prometheus_client", "starlette", "uvicorn"}
COMMANDS = {
    "inspect nowhere": "adapter folder",
    "export nowhere adapter -o out --mode static": "base model folder",
    "calibrate nowhere adapter -o out --data rows.jsonl": "base model folder",
    "validate nowhere": "bundle",
    "add nowhere adapter -o out": "bundle",
    "remove nowhere task -o out": "bundle",
    "convert nowhere -o out": "folder or file",
    "run nowhere text": "bundle",
    "bench nowhere": "bundle",
    "serve nowhere": "bundle",
}


@pytest.mark.parametrize("absent", [set(), EXTRAS], ids=["everything", "cpu alone"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_is_not_there(command: str, absent: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = without(absent, _COMMAND.format(arguments=command.split(), large=LARGE))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "3\n", done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: nowhere: no such {COMMANDS[command]}")


def test_every_name_is_there_without_the_extras() -> None:
    code = """
import pydoc
import eptx
from eptx import *
print(pydoc.render_doc(eptx, renderer=pydoc.plaintext))
try:
    validate("bundle")
except eptx.EptxError as error:
    print(error.exit_code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", without(EXTRAS, code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "class Session" in done.stdout and "read_bundle(" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("5 eptx.validate needs ")
    assert done.stdout.splitlines()[-1].endswith(": pip install 'eptx[export]'")

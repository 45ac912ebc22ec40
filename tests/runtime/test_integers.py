"""Products of int8 on a processor without VNNI: an emulated one, which adds them up with saturation."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eptx import Session
from eptx.exporter import ExportOptions
from eptx.runtime.ort import integers
from tests.support.quantized import quantized

GOLDEN = Path(__file__).parents[1] / "golden" / "ept_bert48"
#: With the options of a session as eptx makes them, and with a caller's own, which have no entry.
_PROGRAM = """
import json, sys
import numpy as np, onnxruntime
from eptx import Session
arrays = dict(np.load(sys.argv[1]))
said = []
for bundle in sys.argv[2:]:
    for options in (None, onnxruntime.SessionOptions()):
        session = Session(bundle, threads=1, session_options=options)
        said.append([session.info()["integer_products"], session.run(arrays, "task3")["logits"].tolist()])
print(json.dumps(said))
"""


def test_the_product_that_is_asked() -> None:
    """The bytes are what onnx makes of the node."""
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 4])
    b = helper.make_tensor_value_info("b", TensorProto.INT8, [4, 1])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "p", [a, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert onnx.load_from_string(integers._PRODUCT) == model


def test_sums_are_exact_without_vnni(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None or platform.machine() != "x86_64":
        pytest.skip("there is no qemu-x86_64 (qemu-user), or this is no x86-64")
    options = ExportOptions(mode="conditioned", top_k=2)
    base, adapters = GOLDEN / "base", [GOLDEN / "adapter"]
    bundles = [quantized(base, adapters, tmp_path / scheme, options, scheme) for scheme in ("int8", "int8-static")]
    with np.load(GOLDEN / "golden.npz") as golden:
        arrays = {name: golden[f"in0.{name}"] for name in ("input_ids", "attention_mask")}
    np.savez(tmp_path / "in.npz", **arrays)

    command = [qemu, "-cpu", "Haswell", sys.executable, "-c", _PROGRAM, str(tmp_path / "in.npz")]
    command += [str(bundle.path) for bundle in bundles]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    answers = json.loads(output.splitlines()[-1])
    for bundle, (said, got), (own_said, own) in zip(bundles, answers[::2], answers[1::2], strict=True):
        assert said == "exact, with weights as uint8: this processor has no VNNI"
        assert own_said.startswith("saturate: ") and "session.x64quantprecision=1" in own_said
        want = Session(bundle, threads=1).run(arrays, "task3")["logits"]
        size = np.abs(want).max()
        assert np.abs(want - np.array(got)).max() < 1e-3 * size
        assert np.abs(want - np.array(own)).max() > 1e-2 * size

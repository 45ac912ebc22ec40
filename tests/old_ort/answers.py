"""Runs in a release's own Python, with numpy and onnxruntime alone: what the release makes of models.

    python answers.py FOLDER OUT

FOLDER holds a folder for each model: `model.onnx` and `feeds.npz`. OUT gets `NAME.npz`, with the outputs by their
names. Says on stdout, as JSON, why ONNX Runtime does not load or run a model, or "".
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def answers(folder: Path) -> dict[str, np.ndarray]:
    """The outputs of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    with np.load(folder / "feeds.npz") as feeds:
        values = session.run(None, dict(feeds))
    return dict(zip([output.name for output in session.get_outputs()], values))  # noqa: B905 - Python 3.9


def tried(folder: Path, out: Path) -> str:
    """Writes the outputs of a model, in a process of its own; "" or what is wrong."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            np.savez(out, **answers(folder))
        except Exception as error:
            os.write(write, " ".join(str(error).split())[:300].encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 4096).decode()
    os.close(read)
    status = os.waitpid(child, 0)[1]
    return f"ends with signal {status}" if status else said


if __name__ == "__main__":
    models, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    said = {}
    for model in sorted(path for path in models.iterdir() if path.is_dir()):
        said[model.name] = tried(model, out / f"{model.name}.npz")
    print(json.dumps(said))

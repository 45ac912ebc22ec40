"""Reads a pickle in a process of its own, with limits: ``python -m`` this module reads one file and writes another.

torch's ``weights_only`` loader makes tensors and runs nothing else; what it could still do is take memory or time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from eptx.errors import AdapterError, LimitError
from eptx.exporter.adapters.tensor_files.safetensors import read_tensors

#: Seconds; and bytes besides six times the file, for PyTorch itself.
_SECONDS = 600
_MEMORY = 8 << 30


def unpickle(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a pickle, float32 or float64.

    Raises:
        AdapterError: the loader refuses it.
        LimitError: it takes more memory or time than an adapter does.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "tensors.safetensors"
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__, str(path.absolute()), str(out)],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LimitError(f"{path.name}: reading it takes more than {_SECONDS} seconds") from None
        if done.returncode == AdapterError.exit_code and done.stderr.startswith(f"{path.name}:"):
            raise AdapterError(done.stderr.strip())
        if done.returncode or not out.is_file():
            raise LimitError(f"{path.name}: reading it takes more memory or time than an adapter of its size does")
        return read_tensors(out)


def _main(source: Path, out: Path) -> int:
    _limit(source.stat().st_size)
    from safetensors.numpy import save_file

    from eptx.exporter.adapters.tensor_files.pickled import read_pickle

    try:
        tensors = read_pickle(source)
    except AdapterError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    save_file({name: np.array(array, order="C") for name, array in tensors.items()}, out)
    return 0


def _limit(size: int) -> None:
    """Where the system can: Windows cannot, and macOS does not keep the limit of memory."""
    try:
        import resource
    except ImportError:
        return
    most = _MEMORY + 6 * size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


if __name__ == "__main__":
    raise SystemExit(_main(Path(sys.argv[1]), Path(sys.argv[2])))

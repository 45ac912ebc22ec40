"""`python -m tests.wheels FOLDER`: the wheels in a folder, each installed alone with its extra ``cpu``, and run.

That of x86-64 runs in a new virtual environment, the one of aarch64 in Debian's Python under qemu, in build/wheels.
Both validate bundles by the proofs that PyTorch's outputs were recorded in, and must say that native kernels ran. Last,
what ``[cpu,export]`` would install beside a PyTorch for CPUs must have nothing of CUDA.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.runtime.cpp.proved import NAMES, write_proved

PLACE = Path("build/wheels").absolute()
#: The newest policy first: pip takes a wheel of any of these names.
_POLICIES = ("2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
_CUDA = ("nvidia", "cuda", "triton")


def own_python(wheel: Path) -> list[str]:
    """A new environment of this machine, with the wheel."""
    folder = PLACE / "own"
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", f"{wheel}[cpu]"])
    return [python]


def arm_python(wheel: Path) -> list[str]:
    """Debian's Python for aarch64, under qemu, with the wheel."""
    system, packages = PLACE / "system", PLACE / "packages"
    _run(["sh", str(Path(__file__).with_name("arm_python.sh")), str(system)])
    shutil.rmtree(packages, ignore_errors=True)
    platforms = [f"--platform=manylinux_{policy}_aarch64" for policy in _POLICIES]
    kind = ["--python-version=3.13", "--only-binary=:all:", *platforms]
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), *kind, f"{wheel}[cpu]"])
    qemu, python = system / "qemu" / "usr" / "bin" / "qemu-aarch64", system / "usr" / "bin" / "python3.13"
    return [str(qemu), "-L", str(system), "-E", f"PYTHONPATH={packages}", str(python)]


def try_wheel(python: list[str], proved: Path) -> None:
    """Validates the bundles by their proofs; ends the program where one fails, or runs without kernels."""
    version = _run([*python, "-c", "import platform; print(platform.machine(), platform.python_version())"])
    print(version.strip(), flush=True)
    for name in NAMES:
        command = [*python, "-m", "eptx", "validate", str(proved / name), "--against-proof", f"{proved / name}.proof"]
        report = json.loads(_run([*command, "--json"]))
        print(f"  {name}: passed {report['passed']}", flush=True)
        if not report["passed"]:
            raise SystemExit(json.dumps(report, indent=1))
        ask = f"import eptx; print(eptx.Session({str(proved / name)!r}).info()['kernels'])"
        kernels = _run([*python, "-c", ask]).strip()
        print(f"  {name}: kernels {kernels}", flush=True)
        if "'running': True" not in kernels:
            raise SystemExit(1)


def try_export_extra(wheel: Path) -> None:
    """Beside a PyTorch for CPUs, ``[cpu,export]`` takes nothing of CUDA."""
    folder = PLACE / "export"
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        str(Path("constraints.txt").absolute()),
    ]
    _run([*pip, "torch"])
    report = json.loads(_run([*pip, "--dry-run", "--report", "-", f"{wheel}[cpu,export]"]))
    names = [each["metadata"]["name"].lower() for each in report["install"]]
    wrong = [name for name in names if name == "torch" or name.startswith(_CUDA)]
    print(f"[cpu,export] beside PyTorch for CPUs: {len(names)} packages, of CUDA: {wrong or 'none'}")
    if wrong:
        raise SystemExit(1)


def main(folder: Path) -> None:
    """Tries each wheel."""
    wheels = {each.stem.rsplit("manylinux", 1)[1].split("_", 3)[-1]: each for each in folder.glob("eptx-*.whl")}
    if sorted(wheels) != ["aarch64", "x86_64"]:
        raise SystemExit(f"{folder}: has not one wheel of each kind: {sorted(each.name for each in wheels.values())}")
    proved = PLACE / "proved"
    PLACE.mkdir(parents=True, exist_ok=True)
    write_proved(proved)
    for machine, python in (("x86_64", own_python), ("aarch64", arm_python)):
        print(wheels[machine].name)
        try_wheel(python(wheels[machine]), proved)
    try_export_extra(wheels["x86_64"])


def _run(command: list[str]) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "EPTX_NATIVE")}
    # elsewhere than in the checkout, whose own eptx would be found first
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=PLACE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

"""Path = import: what ``import eptx`` finds in a checkout and outside, however eptx is installed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.support.modules import ROOT, module_of, product

#: Files of eptx, of a room that a link leads to, and of a folder in one.
MODULES = ("eptx", "eptx.exporter.options", "eptx.runtime.session")
SCRIPT = f"""
from eptx import Session
import eptx.exporter.options
import sys
for name in {MODULES}:
    print(sys.modules[name].__file__)
"""
BUILD = "import scikit_build_core.build as backend, sys; backend.build_{0}(sys.argv[1], {{'wheel.cmake': 'false'}})"


def build(checkout: Path, kind: str, out: Path) -> Path:
    """The wheel or sdist that a build frontend gets of a checkout."""
    out.mkdir()
    subprocess.run([sys.executable, "-c", BUILD.format(kind), str(out)], cwd=checkout, check=True, capture_output=True)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, links as they are."""
    copy = tmp_path_factory.mktemp("checkout") / "eptx"
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        if os.path.lexists(ROOT / name) and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "sdist", tmp_path_factory.mktemp("sdist") / "out")


@pytest.fixture(scope="module")
def wheels(checkout: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """How eptx is installed -> the wheel that an installer makes of it."""
    folder = tmp_path_factory.mktemp("wheels")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {
        "wheel": build(checkout, "wheel", folder / "wheel"),
        "sdist": build(unpacked, "wheel", folder / "sdist"),
        "editable": build(checkout, "editable", folder / "editable"),
    }


def files_found(script: Path, python: Path) -> list[Path]:
    """The files of `MODULES` that a script finds which is run where it stands."""
    done = subprocess.run(
        [python, "-W", "error", script.name],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")},
    )
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.split()]


def environment(folder: Path, wheel: Path | None) -> tuple[Path, Path]:
    """An environment with eptx from a wheel, or without it: its site-packages and its interpreter.

    The packages that eptx needs are those of this interpreter.
    """
    venv.create(folder, symlinks=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (site,) = folder.rglob("site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if Path(path).name == "site-packages"))
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return site, python


@pytest.mark.parametrize("installed", ["wheel", "sdist", "editable", "not at all"])
def test_what_an_import_finds(installed: str, checkout: Path, wheels: dict[str, Path], tmp_path: Path) -> None:
    site, python = environment(tmp_path / "venv", wheels.get(installed))
    places = {checkout: checkout}  # the folder of a script comes first on its path
    if installed in wheels:
        places[tmp_path] = checkout if installed == "editable" else site
    for place, home in places.items():
        script = place / "script.py"
        script.write_text(SCRIPT)
        try:
            found = files_found(script, python)
        finally:
            script.unlink()
        expected = [
            home / "eptx" / rest for rest in ("__init__.py", "exporter/options.py", "runtime/session/__init__.py")
        ]
        assert [path.resolve() for path in found] == [path.resolve() for path in expected]


def test_a_wheel_holds_every_module_once(wheels: dict[str, Path]) -> None:
    expected = Counter(map(module_of, product()))
    for installed in ("wheel", "sdist"):
        with zipfile.ZipFile(wheels[installed]) as archive:
            files = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
            assert not [entry for entry in archive.infolist() if stat.S_ISLNK(entry.external_attr >> 16)]
        assert Counter(module_of(entry.filename) for entry in files) == expected


def test_an_sdist_holds_every_module_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
        links = {member.name.partition("/")[2]: member.linkname for member in archive if member.issym()}
    assert Counter(name for name in names if name.endswith(".py")) == Counter(product().keys())
    assert links == {f"eptx/{room}": f"../{room}" for room in ("exporter", "runtime", "calibration")}

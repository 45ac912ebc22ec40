"""SmolLM2-135M-Instruct from the installed package, and the adapter that is trained for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "glue_smollm2"
EPT = _EXAMPLE / "ept"


def smollm2() -> Path:
    """Its transformers folder, made once."""
    spec = importlib.util.spec_from_file_location("glue_smollm2_base", _EXAMPLE / "base.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    folder: Path = module.prepare_base()
    return folder

"""An adapter on modules whose output the trained class drops: SigLIP pools, and its classifier reads the states."""

from __future__ import annotations

from pathlib import Path

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.validation import ValidateOptions, validate_bundle
from tests.matrix.made import make
from tests.matrix.settings import PLAIN
from tests.matrix.table import row


def test_modules_that_change_no_output_need_no_place_in_a_bundle(tmp_path: Path) -> None:
    made = make(row("SigLIP, image classes"), PLAIN, tmp_path / "made", count=1)
    assert "fc1" in (made.adapters[0] / "adapter_config.json").read_text()
    bundle = export_bundle(made.base, made.adapters, tmp_path / "bundle", ExportOptions(mode="static", tasks=["task0"]))
    assert "vision_model.head.mlp.fc1" not in bundle.manifest.modules
    report = validate_bundle(bundle.path, ValidateOptions(base=made.base, adapters=made.adapters))
    assert report.passed, report.reason

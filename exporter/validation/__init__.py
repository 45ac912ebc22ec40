"""``eptx validate``: whether a bundle computes what the trained model computes.

The trained model, loaded as PEFT loads it, runs in float64 and in the export's own type. Their distance is the
noise floor of this model on these inputs, and the ONNX result must lie within a small multiple of it: for every
way to run it, task, adapted module and output.
"""

from eptx.exporter.validation.options import ValidateOptions
from eptx.exporter.validation.run import validate_bundle
from eptx.runtime.validation.report.report import Report
from eptx.runtime.validation.report.text import report_text

__all__ = ["Report", "ValidateOptions", "report_text", "validate_bundle"]

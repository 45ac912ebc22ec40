"""From an adapter checkpoint and its base model to a bundle.

adapter checkpoint -- read --> Adapter --+
                                         +-- fold or attach --> adapted graph -- write --> bundle
base: transformers folder | .onnx -------+
"""

from eptx.exporter.export import export as export_bundle
from eptx.exporter.options import ExportOptions
from eptx.exporter.read import read_adapter
from eptx.exporter.route import Route

__all__ = ["ExportOptions", "Route", "export_bundle", "read_adapter"]

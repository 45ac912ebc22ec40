"""From an adapter checkpoint and its base model to a bundle.

adapter checkpoint -- read --> Adapter --+
                                         +-- fold or attach --> adapted graph -- write --> bundle
base: transformers folder | .onnx -------+
"""

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.options import ExportOptions

__all__ = ["ExportOptions", "Route", "read_adapter"]

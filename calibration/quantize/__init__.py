"""Quantizing the products and tables of a graph, each by its own scheme, with ONNX Runtime's quantizers."""

from eptx.calibration.quantize.graph import Quantizer, Range, Recipe, Scheme

__all__ = ["Quantizer", "Range", "Recipe", "Scheme"]

"""Quantising the products and tables of a graph, each by its own scheme, with ONNX Runtime's quantisers."""

from eptx.calibration.quantise.graph import Quantiser, Range, Recipe, Scheme

__all__ = ["Quantiser", "Range", "Recipe", "Scheme"]

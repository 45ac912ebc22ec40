"""Quantize: how the products and tables of a graph are stored, one by one, with ONNX Runtime's quantizers.

layers -> config (which layer how) -> quantizer -> one_product, embedding_table -> splice
"""

from eptx.calibration.quantize.quantizer import Quantizer, Range, Recipe, Scheme

__all__ = ["Quantizer", "Range", "Recipe", "Scheme"]

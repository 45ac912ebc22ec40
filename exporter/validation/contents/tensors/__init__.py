"""The tensors of a bundle's graphs, compared with those of the trained model number by number.

A run uses only a part of the numbers: of a table, the rows of its tokens and positions; of attention, what fits into
its window. So every tensor that the model's forward uses is searched in the graphs by its content. Rotary tables and
attention windows, which replace formulas and settings, are compared with the model's own code.
"""

from eptx.exporter.validation.contents.tensors.compare import compare_tensors

__all__ = ["compare_tensors"]

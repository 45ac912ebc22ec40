"""What a bundle's graphs hold, number by number, against what the trained model holds.

A run shows only what it reads: of a table, the rows of its tokens and positions; of attention, what fits into its
window. So every tensor that the model's forward uses is looked for in the graphs by its content, and what a graph
holds in the place of a formula or a setting, rotary tables and attention windows, against the model's own code.
"""

from eptx.exporter.validation.contents.tensors.compare import compare_tensors

__all__ = ["compare_tensors"]

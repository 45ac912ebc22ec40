"""float16 in a graph: weights that are stored so, and arithmetic that is done so."""

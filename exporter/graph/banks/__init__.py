"""Banks in a graph: a tensor of which each row reads its own task's, where nodes read one that all rows share."""

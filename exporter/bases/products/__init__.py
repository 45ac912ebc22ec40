"""The products with a weight in a graph: how they store it, and which are an adapter's modules."""

"""What an export puts at the end of a base's graph: task heads, and an embedding."""

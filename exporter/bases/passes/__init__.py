"""Changes of a base's graph before an adapter is put in."""

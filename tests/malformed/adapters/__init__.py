"""Damaged and contradictory adapters of every method."""

"""Contradictory options, and how processes end."""

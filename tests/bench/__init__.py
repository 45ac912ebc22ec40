"""Measurements, never tests: run with ``make bench``."""

"""Damaged bundles, and requests that do not fit them."""

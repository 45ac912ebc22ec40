"""Bundles of every architecture of a base, against PyTorch."""

"""Bundles in the form that other servers read."""

from __future__ import annotations

from eptx.runtime.packaging.triton import TritonModel, package_triton

__all__ = ["TritonModel", "package_triton"]

"""Bundles in the form that other servers take."""

from __future__ import annotations

from eptx.runtime.packaging.triton import TritonModel, package_triton

__all__ = ["TritonModel", "package_triton"]

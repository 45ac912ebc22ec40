"""Poly as a method of eptx."""

from __future__ import annotations

from typing import ClassVar

from eptx.exporter.methods.mixture import MixtureMethod
from eptx.exporter.methods.poly.read import matches, read


class Poly(MixtureMethod):
    """Poly, and MHR, which is Poly with several splits."""

    name: ClassVar[str] = "poly"
    title: ClassVar[str] = "Poly"
    tensor_part: ClassVar[str] = ".poly_"
    matches = staticmethod(matches)
    read = staticmethod(read)


METHOD = Poly()

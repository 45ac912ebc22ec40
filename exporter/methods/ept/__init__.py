"""EPT, Expert Pyramid Tuning (arXiv 2603.12577), as released."""

from eptx.exporter.methods._method import Method
from eptx.exporter.methods.ept.attach import attach
from eptx.exporter.methods.ept.fold import fold
from eptx.exporter.methods.ept.read import matches, read

METHOD = Method("ept", matches, read, fold, attach)

"""TuckA, Tucker Adaptation (arXiv 2511.06859), as released."""

from eptx.exporter.methods._method import Method
from eptx.exporter.methods.tucka.attach import attach
from eptx.exporter.methods.tucka.fold import fold
from eptx.exporter.methods.tucka.read import matches, read

METHOD = Method("tucka", matches, read, fold, attach)

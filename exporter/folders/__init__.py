"""Finds the folders that a user means: by a path, by an id on the Hugging Face hub, or by what an adapter says."""

from eptx.exporter.folders.find import Adapters, Found, Given, find_adapters, find_arguments, find_base, find_folders
from eptx.exporter.folders.tensor_file import find_tensor_file

__all__ = [
    "Adapters",
    "Found",
    "Given",
    "find_adapters",
    "find_arguments",
    "find_base",
    "find_folders",
    "find_tensor_file",
]

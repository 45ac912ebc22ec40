"""The class that an export was told to make, compared with the one that was trained."""

from __future__ import annotations

from collections.abc import Iterator

from eptx.bundle import Manifest
from eptx.exporter.trained import said_class, same_class
from eptx.exporter.validation.reference.files import ReferenceFiles
from eptx.runtime.validation.check import Check

_NAME = "eptx.json: sources.model_class"


def compare_class(manifest: Manifest, reference: ReferenceFiles) -> Iterator[Check]:
    """Compares the class that the manifest names with what the user says, or else the adapter's files.

    The reference is of the class that is named, and has a place for every tensor of the adapter: a bundle is compared
    with what PEFT computes in that class. Whether it is the class that was wanted, only the user knows.
    """
    told, given = manifest.sources.model_class, reference.said.model_class
    if told is None:
        return
    if given is not None:
        wrong = None if same_class(reference.base, told, given) else f"says {told}; --model-class says {given}"
        yield Check(_NAME, "compared", wrong)
        return
    said = [said_class(files) for files in reference.files]
    others = [name for name in said if name is None or not same_class(reference.base, name, told)]
    if not others:
        yield Check(_NAME, "compared")
    elif others[0] is None:
        why = f"the export was told {told}, and the adapter's files name no class: say it with --model-class"
        yield Check(_NAME, "unchecked", why=why)
    else:
        yield Check(_NAME, "unchecked", why=f"the export was told {told}; the adapter was trained as {others[0]}")

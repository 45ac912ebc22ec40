"""What ``eptx.json`` says of the output ``embedding``, compared with the base's sentence-transformers folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eptx.bundle import Manifest
from eptx.exporter.trained.sentence import SentenceHead
from eptx.manifest.names import EMBEDDING
from eptx.runtime.validation.check import Check


def compare_embedding(manifest: Manifest, sentence: SentenceHead | None) -> Iterator[Check]:
    """A check for a bundle that has the output. Whether it must have it, its outputs show."""
    said = manifest.embedding
    if said is None and all(spec.name != EMBEDDING for spec in manifest.outputs):
        return
    found: Any = said and (said.pooling, [(each.size, each.activation) for each in said.layers], said.normalize)
    wanted: Any = None
    if sentence is not None:
        layers = [
            (layer.out_features, activation.lower())
            for layer, activation in zip(sentence.layers, sentence.activations, strict=True)
        ]
        wanted = (sentence.modes, layers, sentence.normalize)
    wrong = None if found == wanted else f"says {_shown(found)}; the base's folder says {_shown(wanted)}"
    yield Check(f"eptx.json: {EMBEDDING}", "compared", wrong)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing of it"
    pooling, layers, normalize = value
    parts = [", ".join(pooling), *(f"a layer of {size} ({activation})" for size, activation in layers)]
    return " and ".join([*parts, *(["normalized"] if normalize else [])])

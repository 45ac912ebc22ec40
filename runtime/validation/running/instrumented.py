"""A bundle's model with its inside visible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class InstrumentedModel:
    """A bundle's model with more outputs.

    Attributes:
        added: behind the bytes of the model, it makes them those of the model with more outputs, and with the nodes
            that these need: protobuf merges what a message holds twice.
        order: the modules in the order in which the graph computes them.
        routes: module -> names of the values that hold its choice and weights.
        float_activations: a copy in which no activation is rounded to 8 bits, where the shipped model rounds some: it
            is what `added` belongs to then. None where the shipped model rounds none.
        encoder: the same of the encoder, whose modules are in `order` too.
    """

    added: bytes
    order: tuple[str, ...]
    routes: Mapping[str, tuple[str, str]]
    float_activations: bytes | None = None
    encoder: InstrumentedModel | None = None

    @property
    def quantizes_activations(self) -> bool:
        """Whether the bundle, as it is shipped, rounds activations to 8 bits somewhere."""
        return self.float_activations is not None or (self.encoder is not None and self.encoder.quantizes_activations)

    def observed(self, path: Path) -> bytes:
        """The bytes of the model with more outputs.

        Args:
            path: of the bundle's own model.
        """
        return (self.float_activations or path.read_bytes()) + self.added

"""One way to store a model, and a copy of a model stored so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from eptx.bundle import Quantization
from eptx.calibration.quantize.layers import Layer, find_layers, key_of
from eptx.calibration.quantize.quantizer import Quantizer, Range, Recipe, Scheme
from eptx.errors import NotSupportedError
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.options import StoredPrecision
from eptx.exporter.steps.export import store
from eptx.manifest.names import FLOAT_PRECISIONS

#: A decoder in blocks of 4 bits as GenAI's builder makes it, embeddings too.
BUILT: Scheme = "int4"

_NAMES: dict[str, StoredPrecision] = {"int4-blocks": "int4", "int8-blocks": "int8"}


@dataclass(frozen=True)
class QuantizationConfig:
    """One way to store a model.

    Attributes:
        scheme: of every product; embedding tables are int8 by rows where products are quantized.
        kept: names of layers that are stored as float16 instead.
    """

    scheme: Scheme
    kept: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As reports call it."""
        return self.scheme if not self.kept else f"{self.scheme}, {len(self.kept)} kept"

    @property
    def precision(self) -> StoredPrecision:
        """As the manifest says it."""
        return "mixed" if self.kept else _NAMES.get(self.scheme, cast(StoredPrecision, self.scheme))


#: What every other config is measured against.
FP32 = QuantizationConfig("fp32")


def quantize(
    adapted: Adapted,
    config: QuantizationConfig,
    quantization: Quantization | None = None,
    *,
    layers: Sequence[Layer] | None = None,
    ranges: Mapping[str, Range] | None = None,
    quantizer: Quantizer | None = None,
) -> Adapted:
    """A copy of adapted float32 graphs, stored in one way.

    Args:
        adapted: the graphs; left as they are.
        config: how to store them.
        quantization: what the manifest says of budget and data; the schemes are filled in.
        layers: those of the graphs, where they are known.
        ranges: product -> range of its input, for the scheme "int8-static".
        quantizer: one that may know these products already.

    Raises:
        NotSupportedError: a module's weight, with routes folded in, is not one weight.
    """
    several = adapted.routes is not None and adapted.routes.calls > 1
    if config.precision not in FLOAT_PRECISIONS and several and adapted.options.mode == "static":
        raise NotSupportedError(
            f"--precision {config.precision}: this base calls the adapter's router several times, so one module "
            "is folded to several weights; use --mode conditioned, or --precision fp16"
        )
    result = adapted.copy(config.precision)
    if config.precision not in FLOAT_PRECISIONS:
        products, tables = _schemes(layers or find_layers(adapted.graphs), config)
        for edited in result.graphs:
            keys = {name: key_of(edited.graph, name) for name in (*edited.products, *edited.embeddings)}
            recipe = Recipe(
                {name: products[keys[name]] for name in edited.products},
                {name: tables[keys[name]] for name in edited.embeddings},
                {name: ranges[keys[name]] for name in edited.products} if ranges is not None else {},
            )
            (quantizer or Quantizer())(edited.graph.model.graph, recipe)
        quantization = replace(quantization or Quantization({}, {}), products=products, embeddings=tables)
        result = replace(result, quantization=quantization)
    store(result)
    return result


def _schemes(layers: Sequence[Layer], config: QuantizationConfig) -> tuple[dict[str, Scheme], dict[str, Scheme]]:
    """The scheme of every product and of every table."""
    products: dict[str, Scheme] = {}
    tables: dict[str, Scheme] = {}
    for layer in layers:
        kept = layer.name in config.kept
        table: Scheme = "fp16" if kept else "int8"
        products |= dict.fromkeys(layer.products, table if kept else config.scheme)
        tables |= dict.fromkeys(layer.embeddings, table)
    return products, tables

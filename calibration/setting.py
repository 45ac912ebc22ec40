"""One way to store a model, and a model stored so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from eptx.bundle import Quantization
from eptx.calibration.groups import Group, groups_of, key_of
from eptx.calibration.quantize import Quantizer, Range, Recipe, Scheme
from eptx.errors import NotSupportedError
from eptx.exporter.bundle.write import Adapted
from eptx.exporter.export import store
from eptx.exporter.options import Precision

REFERENCE: Scheme = "fp32"
#: A decoder in blocks of 4 bits as GenAI's builder makes it, embeddings too.
BUILT: Scheme = "int4"

_WHOLE = ("fp32", "fp16")
_NAMES: dict[str, Precision] = {"int4-blocks": "int4", "int8-blocks": "int8"}


@dataclass(frozen=True)
class Setting:
    """One way to store a model.

    Attributes:
        scheme: of every product; embedding tables are int8 by rows where products are quantized.
        kept: groups that are stored as float16 instead.
    """

    scheme: Scheme
    kept: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As reports call it."""
        return self.scheme if not self.kept else f"{self.scheme}, {len(self.kept)} kept"

    @property
    def precision(self) -> Precision:
        """As a bundle says it."""
        return "auto" if self.kept else _NAMES.get(self.scheme, cast(Precision, self.scheme))


def stored(
    adapted: Adapted,
    setting: Setting,
    said: Quantization | None = None,
    *,
    groups: Sequence[Group] | None = None,
    ranges: Mapping[str, Range] | None = None,
    quantizer: Quantizer | None = None,
) -> Adapted:
    """A copy of adapted float32 graphs, stored in one way.

    Args:
        adapted: the graphs; left as they are.
        setting: how to store them.
        said: what the manifest is to say about budget and data.
        groups: theirs, where they are known.
        ranges: product -> what it reads, for the scheme "int8-static".
        quantizer: one that may know these products already.

    Raises:
        NotSupportedError: a module's weight, with routes folded in, is not one weight.
    """
    several = adapted.routes is not None and adapted.routes.calls > 1
    if setting.precision not in _WHOLE and several and adapted.options.mode == "static":
        raise NotSupportedError(
            f"--precision {setting.precision}: this base calls the adapter's router several times, so one module "
            "is folded to several weights; use --mode conditioned, or --precision fp16"
        )
    result = adapted.copy(replace(adapted.options, precision=setting.precision))
    if setting.precision not in _WHOLE:
        products, tables = _schemes(groups or groups_of(adapted.parts), setting)
        for part in result.parts:
            keys = {name: key_of(part.graph, name) for name in (*part.products, *part.embeddings)}
            recipe = Recipe(
                {name: products[keys[name]] for name in part.products},
                {name: tables[keys[name]] for name in part.embeddings},
                {name: ranges[keys[name]] for name in part.products} if ranges is not None else {},
            )
            (quantizer or Quantizer())(part.graph.model.graph, recipe)
        said = replace(said or Quantization({}, {}), products=products, embeddings=tables)
        result = replace(result, quantization=said)
    store(result)
    return result


def _schemes(groups: Sequence[Group], setting: Setting) -> tuple[dict[str, Scheme], dict[str, Scheme]]:
    """The scheme of every product and of every table."""
    products: dict[str, Scheme] = {}
    tables: dict[str, Scheme] = {}
    for group in groups:
        kept = group.name in setting.kept
        table: Scheme = "fp16" if kept else "int8"
        products |= dict.fromkeys(group.products, table if kept else setting.scheme)
        tables |= dict.fromkeys(group.embeddings, table)
    return products, tables

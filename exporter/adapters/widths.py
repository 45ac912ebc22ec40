"""Whether an adapter has the widths of the modules that it is put into."""

from __future__ import annotations

from collections.abc import Mapping

from eptx.errors import BaseModelError
from eptx.exporter.adapters.adapter import Adapter


def check_widths(adapter: Adapter, modules: Mapping[str, tuple[int, int]]) -> None:
    """Compares the adapter's widths with the base's.

    Args:
        adapter: the adapter.
        modules: adapted module -> [out, in] of its weight in the base.

    Raises:
        BaseModelError: they differ at a module.
    """
    for name, (out_features, in_features) in modules.items():
        widths = adapter.widths(name)
        known = widths.out_features
        inner = in_features if widths.in_features is None else widths.in_features
        if in_features != inner or not (known is None or out_features in known):
            out = "any" if known is None else "-".join(map(str, sorted({known[0], known[-1]})))
            raise BaseModelError(
                f"the adapter does not fit this base: {name} is [{out_features}, {in_features}] in the base, "
                f"[{out}, {inner}] in the adapter: give the base that it was trained on"
            )

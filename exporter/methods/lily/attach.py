"""Lily in a graph: an operator at every module, which weighs the experts over the batch or over each row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eptx.exporter import ops
from eptx.exporter.bases.products.site import Site
from eptx.exporter.graph.delta import Delta
from eptx.exporter.graph.editor import GraphEditor
from eptx.exporter.graph.settings import GraphSettings
from eptx.exporter.methods.lily.adapter import LilyAdapter


def attach_router(
    adapter: LilyAdapter, editor: GraphEditor, sites: Mapping[str, Site], settings: GraphSettings
) -> None:
    """Puts the modules with their routers into a graph."""
    per_row = settings.routing != "batch"
    constants: dict[bytes, ir.Value] = {}  # what layers share is in the graph once
    masks: dict[ir.Value, ir.Value] = {}

    def constant(name: str, array: np.ndarray, *, exact: bool = False) -> ir.Value:
        key = array.tobytes()
        if key not in constants:
            constants[key] = editor.constant(name, array, exact=exact)
        return constants[key]

    for name, site in sites.items():
        module = adapter.modules[name]
        own = (
            constant(f"{name}.lily_router", module.router, exact=True),
            constant(f"{name}.lily_A", module.a.T),
            constant(f"{name}.lily_B", module.scale * module.b.astype(np.float64)),
        )
        for each in (site, *site.also):
            place = editor.place(site, each, per_row=per_row)
            if place.x not in masks:
                masks[place.x] = editor.counted_positions(place.x, per_row=per_row)
            editor.adapt(place, Delta(ops.PooledMixtureDelta, (masks[place.x],), own))

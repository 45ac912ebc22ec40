"""Whether what a product reads holds the rows of a batch one after the other, as operators that differ by row need it.

Most products read [batch, ...]. Some read windows of an image [windows * batch, ...] or the choices of a question, each
row's together; and some read [length, batch, ...], where one position of every row comes before the next. A
shape does not tell these apart, so the base runs on two rows, and on the first of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from eptx._one_line import one_line, some
from eptx.errors import BaseModelError, NotSupportedError
from eptx.exporter.bases import Site
from eptx.exporter.bases.part import open_part
from eptx.exporter.graph.builder import GraphBuilder

#: Sizes of free axes for the run.
_SIZES = {"batch": 2, "choices": 3, "samples": 4000, "frames": 48}
_LENGTH, _TOKENS = 6, 20
#: Rounding differs between runs of one and of two rows, most where activations are quantized in the range of a whole
#: batch. Another row's values differ by far more.
_ROUNDING, _NEARER = 1e-3, 0.25


def check_row_order(builder: GraphBuilder, sites: Mapping[str, Site]) -> None:
    """Refuses modules of which the graph mixes the rows of a batch.

    Raises:
        NotSupportedError: by their names.
        BaseModelError: the part of the graph before them does not run.
    """
    places = [place for site in sites.values() for place in (site, *site.also)]
    unclear = {place.module: place.x for place in places if not (builder.has_rows(place.x) or place.fixed_input)}
    if not unclear or len(builder.row_dims) > 1:  # where all rows have one task, any order is right
        return
    two, one = _values(builder.model, list(dict.fromkeys(unclear.values())))
    mixed = [module for module, x in unclear.items() if not _begins(two[str(x.name)], one[str(x.name)])]
    if mixed:
        raise NotSupportedError(
            f"{len(mixed)} adapted modules read something that does not hold one row of the batch after the other (as "
            f"positions do, which all rows share), so that rows cannot differ in their task: {some(mixed)}; use --mode "
            "static"
        )


def _begins(two: np.ndarray, one: np.ndarray) -> bool:
    """Whether the values of two rows begin with those of the first."""
    if two.ndim != one.ndim or len(two) != 2 * len(one) or two.shape[1:] != one.shape[1:]:
        return False
    own, other = np.abs(two[: len(one)] - one), np.abs(two[len(one) :] - one)
    if own.max() <= _ROUNDING * max(1.0, float(np.abs(one).max())):
        return True
    return bool(own.mean() <= _NEARER * other.mean())


def _values(model: ir.Model, values: list[ir.Value]) -> list[dict[str, np.ndarray]]:
    """What a graph computes for some values, of two rows and of the first alone."""
    names = [str(value.name) for value in values]
    try:
        session = open_part(model, names)
        feeds = _feeds(model.graph)
        given = {value.name for value in session.get_inputs()}
        runs = [{name: array[:rows] for name, array in feeds.items() if name in given} for rows in (2, 1)]
        return [dict(zip(names, session.run(names, feed), strict=True)) for feed in runs]
    except Exception as error:  # whatever a graph that somebody else wrote provokes
        raise BaseModelError(f"the base graph does not run on two rows: {one_line(error)}") from None


def _feeds(graph: ir.Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20260)
    feeds = {}
    for value in graph.inputs:
        assert value.shape is not None and value.name is not None and value.dtype is not None
        dims = [dim if isinstance(dim, int) else _SIZES.get(str(dim.value), _LENGTH) for dim in value.shape]
        array = rng.normal(size=dims) if value.dtype.is_floating_point() else rng.integers(0, _TOKENS, dims)
        if value.name != "input_ids" and not value.dtype.is_floating_point():
            array = np.full(dims, value.name == "attention_mask")
        feeds[value.name] = array.astype(value.dtype.numpy())
    return feeds

"""Ways to change a copy of a bundle so that it stays well-formed: its files are hashed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from eptx.errors import BundleError
from eptx.files.safe_files import hash_file
from eptx.files.strict_json import dump_json, read_json_object

Damage = Callable[[Path], None]
GraphChange = Callable[[ir.Graph], None]
#: JSON object -> changed in place.
JsonChange = Callable[[dict[str, Any]], None]
#: The numbers of an initializer -> others of the same shape.
Numbers = Callable[[np.ndarray], np.ndarray]
MODEL, MANIFEST = "model.onnx", "eptx.json"
_SMALL = 16384


def rehash(folder: Path) -> None:
    """Lists the bundle's files as they are now."""
    manifest = read_json_object(folder / MANIFEST, error=BundleError)
    found = {name: hash_file(folder / name, error=BundleError) for name in manifest["files"]}
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in found.items()}
    (folder / MANIFEST).write_bytes(dump_json(manifest | {"files": files}))


def model(change: Callable[[ir.Model], None], file: str = MODEL) -> Damage:
    """Changes a model of the bundle, its functions included."""

    def damage(folder: Path) -> None:
        found = ir.load((folder / file).absolute())
        change(found)
        ir.external_data.load_to_model(found)
        ir.save(found, folder / file, external_data=f"{file}.data", size_threshold_bytes=_SMALL)
        rehash(folder)

    return damage


def graph(change: GraphChange, file: str = MODEL) -> Damage:
    """Changes a graph of the bundle."""
    return model(lambda found: change(found.graph), file)


def json_file(name: str, change: JsonChange) -> Damage:
    """Changes a JSON file of the bundle."""

    def damage(folder: Path) -> None:
        value = read_json_object(folder / name, error=BundleError)
        change(value)
        (folder / name).write_bytes(dump_json(value))
        if name != MANIFEST:
            rehash(folder)

    return damage


def manifest(change: JsonChange) -> Damage:
    """Changes ``eptx.json``."""
    return json_file(MANIFEST, change)


def text_file(name: str, old: str, new: str) -> Damage:
    """Replaces text in a file of the bundle."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content, f"{name} does not hold {old!r}"
        (folder / name).write_text(content.replace(old, new))
        rehash(folder)

    return damage


def both(*damages: Damage) -> Damage:
    """One after the other."""

    def damage(folder: Path) -> None:
        for each in damages:
            each(folder)

    return damage


def put(**values: Any) -> JsonChange:
    """Sets fields; ``a__b`` is the field b of the field a."""

    def change(value: dict[str, Any]) -> None:
        for name, new in values.items():
            *path, last = name.split("__")
            inner = value
            for part in path:
                inner = inner[part]
            assert inner.get(last) != new, f"{name} is {new!r} already"
            inner[last] = new

    return change


def initializer(found: ir.Graph, *parts: str) -> ir.Value:
    """The one initializer whose name holds these parts, of a constant node's value too.

    Raises:
        AssertionError: there is none, or several.
    """
    named = [value for name, value in found.initializers.items() if all(part in name for part in parts)]
    assert len(named) == 1, f"{parts}: {[value.name for value in named]} of {list(found.initializers)}"
    return named[0]


def mask_of(found: ir.Graph) -> ir.Value:
    """The one initializer that hides padding: float32's least number.

    Raises:
        AssertionError: there is none, or several.
    """
    least = np.finfo(np.float32).min
    held = [
        v for v in found.initializers.values() if v.const_value is not None and np.all(v.const_value.numpy() == least)
    ]
    assert len(held) == 1, f"{[value.name for value in held]}"
    return held[0]


def set_numbers(value: ir.Value, change: Numbers) -> None:
    """Gives an initializer other numbers, of its own type; they must differ from what they were."""
    assert value.const_value is not None
    old = value.const_value.numpy()
    new = np.asarray(change(old.copy())).astype(old.dtype)
    assert new.shape == old.shape
    assert not np.array_equal(new, old), f"{value.name} stays as it is"
    value.const_value = ir.Tensor(np.ascontiguousarray(new), name=value.name)


def numbers(change: Numbers, *parts: str, file: str = MODEL) -> Damage:
    """Changes the numbers of the initializer whose name holds these parts."""
    return graph(lambda found: set_numbers(initializer(found, *parts), change), file)


def swapped(first: Any, second: Any, axis: int = 0) -> Numbers:
    """Exchanges two rows or columns."""

    def change(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array, axis, 0)
        moved[[first, second]] = moved[[second, first]]
        return array

    return change


def zeroed(*index: Any) -> Numbers:
    """Sets a part to zero."""

    def change(array: np.ndarray) -> np.ndarray:
        array[index] = 0
        return array

    return change


def scaled(factor: float, *index: Any) -> Numbers:
    """Multiplies a part, or all of it."""

    def change(array: np.ndarray) -> np.ndarray:
        array[index or ...] = array[index or ...] * factor
        return array

    return change


def filled(number: float, *index: Any) -> Numbers:
    """Sets a part to a number."""

    def change(array: np.ndarray) -> np.ndarray:
        array[index] = number
        return array

    return change


def nodes(found: ir.Graph | ir.Function, op_type: str) -> list[ir.Node]:
    """The nodes of a type, in order; of a name that begins so."""
    return [node for node in found if node.op_type.startswith(op_type)]


def set_attribute(op_type: str, name: str, value: Any, at: int | None = None) -> GraphChange:
    """Sets an attribute of all nodes of a type, or of one."""

    def change(found: ir.Graph) -> None:
        chosen = nodes(found, op_type)
        assert chosen, f"no {op_type}"
        for node in chosen if at is None else [chosen[at]]:
            kind = ir.AttributeType.FLOAT if isinstance(value, float) else ir.AttributeType.INT
            node.attributes[name] = ir.Attr(name, kind, value)

    return change


def constant(found: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer."""
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
    found.register_initializer(value)
    return value


def after(found: ir.Graph, value: ir.Value, *new: ir.Node) -> None:
    """Puts nodes behind a value; whatever used it, outputs included, uses the last one's output in its place."""
    last = new[-1].outputs[0]
    users = [use for use in value.uses() if use[0] not in new]
    for index, node in enumerate(new):
        for place, output in enumerate(node.outputs):
            output.name = output.name or f"wrong_{index}_{place}_{value.name}"
    maker = value.producer()
    if maker is None:
        found.insert_before(next(iter(found)), new)
    else:
        found.insert_after(maker, new)
    for user, index in users:
        user.replace_input_with(index, last)
    if value in found.outputs:
        place = list(found.outputs).index(value)
        name, last.type, last.shape = value.name, value.type, value.shape
        value.name, last.name = f"{name}_right", name
        found.outputs[place] = last
    found.sort()

"""eptx.schema.json and the reader of eptx.json accept and refuse the same manifests.

A schema cannot say every rule. Those that the reader alone knows are listed in `READER_ONLY` and in docs/bundle.md.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eptx.bundle import (
    Component,
    Embedding,
    EmbeddingLayer,
    FileEntry,
    Generation,
    Image,
    Manifest,
    ModuleOutput,
    Quantization,
    Resize,
    Sources,
    Task,
    TensorSpec,
    Text,
)
from eptx.errors import BundleError
from eptx.files.strict_json import dump_json, read_json
from eptx.manifest.reader import read_manifest
from tests.eptx.test_bundle import DAMAGE, change_any_field
from tests.malformed.bundles.test_bundles import LIES
from tests.support.schema import SCHEMA
from tests.support.tiny_bundle import tiny_manifest, write_tiny

#: What the reader says where a rule is its own.
READER_ONLY = (
    "appears twice",
    "cannot be printed",
    "label names for",
    "labels; the model has no output logits",
    "labels; a row has",
    r"columns that are not \[first, last\]",
    "do not fit the routing",
    "must have a route for each of its modules",
    "does not say how many weights a row has",
    "do not fit each other",
    "a decoder has inputs input_ids and attention_mask",
    "tokens; the model has [0-9]",
    "generation names token",
    "the encoder's file",
    "as long as the last layer",
    "the encoder names no (input|output), or one twice",
)

CACHE = (TensorSpec("past_key_values.0.key", "float32", ("batch", 2, "past", 4)),)
KEPT = (TensorSpec("present.0.key", "float32", ("batch", 2, "total", 4)),)
LOGITS = TensorSpec("logits", "float32", ("batch", "length", 12))
PROMPT = tuple(TensorSpec(name, "int64", ("batch", "length")) for name in ("input_ids", "attention_mask"))
TASK_ID = TensorSpec("task_id", "int64", ("batch",))
PIXELS = TensorSpec("pixel_values", "float32", ("batch", 3, 32, 36))
ROUTES = (TensorSpec("route_group", "int64", ("batch",)), TensorSpec("route_weights", "float32", ("batch", 3)))
MODULE = {"layer": ModuleOutput("out", (0, 4), True, (1, 2))}


def manifests() -> dict[str, Manifest]:
    """Manifests in which every field is filled at least once."""
    frozen = {"group": 0, "weights": [0.5, 1]}
    decoder = {"tasks": (Task("a", 0), Task("b", 1)), "vocab_size": 12}
    found = {
        "conditioned": tiny_manifest(
            text=Text(16, "left", "right", 3, True),
            sources=Sources(True, True, 2, ("sst2", "mnli"), {"sst2": "regression"}),
            quantization=Quantization({"p": "int8"}, {"e": "fp16"}, {"sst2": 0.5}, {"sst2": "accuracy"}, 128),
        ),
        "static": tiny_manifest(
            "static",
            method="tucka",
            route={
                "tasks": {"mnli": [frozen]},
                "constant": [{**frozen, "call": 1}],
                "frozen_error": {"mnli": {"mean": 0.1}},
            },
        ),
        "routes of modules": tiny_manifest(
            "static", method="lily", route={"tasks": {"mnli": [frozen]}, "constant": [], "modules": ["encoder.query"]}
        ),
        "dynamic": tiny_manifest("dynamic"),
        "embedding": tiny_manifest(
            outputs=(LOGITS, TensorSpec("embedding", "float32", ("batch", 4))),
            embedding=Embedding(("mean", "cls"), (EmbeddingLayer(6, "gelu"), EmbeddingLayer(4, "identity")), True),
        ),
        "image": tiny_manifest(
            inputs=(PIXELS, TASK_ID),
            image=Image("white", Resize(None, None, 40, 60, "bicubic"), (32, 36), 0.5, (0.1, 0, 1), (1, 2, 3.5), True),
        ),
        "image of one size": tiny_manifest(
            inputs=(PIXELS, TASK_ID),
            image=Image("drop", Resize(4, 5, None, None, "box"), None, None, None, None, False),
        ),
        "routing": tiny_manifest(
            "dynamic",
            method="tucka",
            task_inference=False,
            routing="prompt",
            inputs=(*PROMPT, *ROUTES),
            outputs=tuple(replace(t, name=f"{t.name}_used") for t in ROUTES),
            tasks=(Task("a", 0),),
        ),
        "decoder": tiny_manifest(
            inputs=(*PROMPT, TASK_ID, *CACHE),
            outputs=(LOGITS, *KEPT),
            generation=Generation("decoder", (2, 3), 0),
            modules=MODULE,
            **decoder,
        ),
        "encoder-decoder": tiny_manifest(
            inputs=(PROMPT[0], TASK_ID, *CACHE),
            outputs=(LOGITS, *KEPT),
            generation=Generation("encoder-decoder", (2,), 0, 1),
            encoder=Component("encoder.onnx", PROMPT, (TensorSpec("cross.0", "float32", ("batch", 2)),), MODULE),
            **decoder,
        ),
    }
    listed = {name: FileEntry(1, "0" * 64) for name in ("model.onnx", "encoder.onnx", "a/b.json")}
    return {name: replace(manifest, files=listed) for name, manifest in found.items()}


def as_json(manifest: Manifest) -> Any:
    return json.loads(dump_json(manifest.to_json()))


def reader_says(value: Any) -> str | None:
    """Why the reader refuses a manifest."""
    try:
        read_manifest(value)
    except BundleError as e:
        return str(e)
    return None


def compare(value: Any) -> str | None:
    """Holds the schema to the reader; the rule that only the reader knows, if that is why it refused."""
    said, fits = reader_says(value), SCHEMA.is_valid(value)
    if said is None:
        assert fits, [error.message for error in SCHEMA.iter_errors(value)]
        return None
    rule = next((rule for rule in READER_ONLY if re.search(rule, said)), None)
    assert not fits or rule is not None, said
    return rule if fits else None


def places(value: Any) -> Iterator[Any]:
    """Every object and list in a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for inner in list(value.values() if isinstance(value, dict) else value):
            yield from places(inner)


OTHERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 3, -1, 1 << 16, 1 << 31, 1 << 63, 1.5, -0.5, "", "x", "a\nb", "base"),
    *([], {}, [None], [1], [""], ["x", "x"], {"x": None}, {"x": "y"}, {"x": [{}]}),
)


def mutations(value: Any) -> Iterator[Any]:
    """The manifest with a field gone, doubled, unknown, or of another type or size: each change by itself."""
    for place in places(value):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if isinstance(place, dict):
            place["x"] = 1
            yield value
            del place["x"]
        else:
            place.append(copy.deepcopy(place[0]) if place else None)
            yield value
            place.pop()
        for key in keys:
            kept = place[key]
            for other in OTHERS:
                place[key] = other
                yield value
            place[key] = kept
            if isinstance(place, dict):
                items = list(place.items())
                del place[key]
                yield value
                place.clear()
                place.update(items)
        if isinstance(place, list) and place:
            kept = place.pop()
            yield value
            place.append(kept)


@pytest.mark.parametrize("name", manifests())
def test_manifests_of_every_kind_fit(name: str) -> None:
    value = as_json(manifests()[name])
    assert reader_says(value) is None
    assert compare(value) is None


def test_every_change_of_one_field() -> None:
    met, refused, accepted = set(), 0, 0
    for manifest in manifests().values():
        for value in mutations(as_json(manifest)):
            met.add(compare(value))
            refused += not SCHEMA.is_valid(value)
            accepted += SCHEMA.is_valid(value)
    assert met == {None, *READER_ONLY}, "a rule that no change met does not belong in the list"
    assert refused > 10_000 and accepted > 500


def test_names_of_files() -> None:
    value = as_json(manifests()["dynamic"])
    entry = value["files"]["model.onnx"]
    odd = ["", ".", "..", "a/..", "../a", "/a", "a/", "a//b", "a\\b", "c:", "a\0", "a\x7f", "a*", "x" * 1025, "a/./b"]
    odd += ["eptx.json", "report.html", "validation.json", "calibration.json", "calibration.html"]
    for name in (*odd, "a", "...", ".a", "a/b/c", "x" * 1024, "ä", "a b"):
        value["files"] = {"model.onnx": entry, name: entry}
        compare(value)
        assert SCHEMA.is_valid(value) == (name not in odd), name


@given(st.sampled_from(sorted(manifests())), st.data())
def test_what_the_reader_accepts_fits(name: str, data: st.DataObject) -> None:
    value = as_json(manifests()[name])
    change_any_field(value, data)
    if reader_says(value) is None:
        assert SCHEMA.is_valid(value)


@pytest.mark.parametrize("name", [*DAMAGE, *LIES])
def test_the_tables_of_damaged_bundles(name: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle", tokenizer=True).path
    if name in DAMAGE:
        DAMAGE[name][0](folder)
    else:
        LIES[name][0](SimpleNamespace(tiny=folder))  # type: ignore[arg-type]
    try:
        value = read_json(folder / "eptx.json", error=BundleError)
    except BundleError:
        return  # no JSON, which is not for a schema to say
    compare(value)


def test_the_schema_names_every_field() -> None:
    text = (files("eptx") / "eptx.schema.json").read_text(encoding="utf-8")
    assert json.loads(text)["properties"].keys() == as_json(tiny_manifest()).keys()

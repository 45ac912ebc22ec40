"""Adapter folders whose files are damaged, or are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.malformed.breaks import (
    CONFIG,
    WEIGHTS,
    Header,
    append,
    config,
    cut,
    fifo,
    first,
    folder,
    header,
    header_length,
    put,
    raw_config,
    remove,
    replace_text,
    setting,
    weights,
    write,
)
from tests.malformed.scene import PREFIX, Case, Cli, Scene, Table, cases, refuses_export

FILE, SETTINGS = f"lora/{WEIGHTS}", f"lora/{CONFIG}"
QUERY_A = "layer.0.query.lora_A.weight"


def _offsets(*values: Any) -> Any:
    return header(FILE, lambda h: first(h).update(data_offsets=list(values)))


def _overlap(h: Header) -> None:
    """Two tensors on the same bytes."""
    one, other = (entry for key, entry in h.items() if entry.get("shape") and "lora_A" in key)
    other.update(one)


def _twice(h: Header) -> str:
    """The same tensor listed twice, which JSON readers take the last of."""
    text = json.dumps(h)
    name = next(iter(h))
    return f'{text[:-1]}, "{name}": {json.dumps(h[name])}}}'


def _again_without_prefix(scene: Scene) -> None:
    arrays = load_file(scene.lora / WEIGHTS)
    save_file({**arrays, QUERY_A: arrays[PREFIX + QUERY_A] + 1}, scene.lora / WEIGHTS)


FILES: Table = {
    "no folder": Case(lambda s: shutil.rmtree(s.lora), 3, "no such adapter folder"),
    "folder is a file": Case(lambda s: (shutil.rmtree(s.lora), s.lora.write_text("")), 3, "no such adapter folder"),
    "folder is empty": Case(lambda s: [p.unlink() for p in s.lora.iterdir()], 3, f"{WEIGHTS} is missing"),
    "no weights": Case(remove(FILE), 3, f"{WEIGHTS} is missing"),
    "no settings": Case(remove(SETTINGS), 3, f"{CONFIG}: cannot be read"),
    "only a pickle": Case(
        lambda s: (s.lora / WEIGHTS).rename(s.lora / "adapter_model.bin"),
        3,
        "holds adapter_model.bin, a pickle, and no adapter_model.safetensors",
    ),
    "a whole model's folder": Case(
        lambda s: (
            [p.unlink() for p in s.lora.iterdir()],
            (s.lora / "config.json").write_text("{}"),
            (s.lora / "model.safetensors").write_bytes(b"x"),
            (s.lora / "training_args.bin").write_bytes(b"x"),
        ),
        3,
        f"{WEIGHTS} is missing; this is a whole model's folder, not an adapter's",
    ),
    "what a trainer leaves beside": Case(
        lambda s: ((s.root / FILE).unlink(), (s.lora / "training_args.bin").write_bytes(b"x")),
        3,
        f"lora: {WEIGHTS} is missing\n",
    ),
    "in a folder of its own": Case(
        lambda s: ((s.lora / "sst2").mkdir(), (s.root / FILE).rename(s.lora / "sst2" / WEIGHTS)),
        3,
        f"{WEIGHTS} is missing; the folder 'sst2' inside it has one",
    ),
    "weights empty": Case(write(FILE, b""), 3, "truncated or not a safetensors file (0 bytes)"),
    "weights of 7 bytes": Case(cut(FILE, 7), 3, "truncated or not a safetensors file (7 bytes)"),
    "weights cut in the header": Case(cut(FILE, 100), 3, "truncated or not a safetensors file"),
    "weights cut in the data": Case(cut(FILE, -1), 3, "damaged safetensors file"),
    "weights too long": Case(lambda s: append(s.lora / WEIGHTS, b"\0"), 3, "damaged safetensors file"),
    "weights are text": Case(write(FILE, "hello, world\n" * 9), 3, "truncated or not a safetensors file"),
    "weights are a pickle": Case(write(FILE, b"\x80\x04}\x94." * 9), 3, "truncated or not a safetensors file"),
    "weights are a FIFO": Case(fifo(FILE), 3, f"{WEIGHTS}: not a regular file"),
    "weights are a folder": Case(folder(FILE), 3, f"{WEIGHTS}: not a regular file"),
    "weights are a device": Case(
        lambda s: ((s.lora / WEIGHTS).unlink(), (s.lora / WEIGHTS).symlink_to("/dev/zero")), 3, "not a regular file"
    ),
    "weights are a loop": Case(
        lambda s: ((s.lora / WEIGHTS).unlink(), (s.lora / WEIGHTS).symlink_to(WEIGHTS)), 3, WEIGHTS
    ),
    "weights of a terabyte": Case(lambda s: os.truncate(s.lora / WEIGHTS, 1 << 40), 6, "larger than"),
    "header length past the end": Case(header_length(FILE, 1 << 20), 3, "truncated or not a safetensors file"),
    "header length huge": Case(header_length(FILE, 2**64 - 1), 3, "truncated or not a safetensors file"),
    "header length zero": Case(header_length(FILE, 0), 3, "header: not valid JSON"),
    "header is not JSON": Case(header(FILE, lambda h: "{nope}"), 3, "header: not valid JSON"),
    "header is not UTF-8": Case(write(FILE, b"\x02\0\0\0\0\0\0\0\xff\xfd"), 3, "header: not UTF-8"),
    "header is a list": Case(header(FILE, lambda h: "[]"), 3, "header is not a JSON object"),
    "header is deep": Case(header(FILE, lambda h: '{"a":' * 50_000), 3, "nested too deeply"),
    "header is empty": Case(write(FILE, b"\x02\0\0\0\0\0\0\0{}"), 3, "holds no tensors"),
    "header lists a tensor twice": Case(header(FILE, _twice), 3, "appears twice"),
    "entry is a list": Case(header(FILE, lambda h: {**h, "x": []}), 3, "tensor x has type None"),
    "entry without offsets": Case(header(FILE, lambda h: first(h).pop("data_offsets") and None), 3, "damaged"),
    "entry without shape": Case(header(FILE, lambda h: first(h).pop("shape") and None), 3, "damaged"),
    "shape negative": Case(header(FILE, lambda h: first(h).update(shape=[-2, -10])), 3, "damaged"),
    "shape overflows": Case(header(FILE, lambda h: first(h).update(shape=[2**62, 4])), 3, "damaged"),
    "shape larger than the data": Case(header(FILE, lambda h: first(h).update(shape=[200, 10])), 3, "damaged"),
    "shape is text": Case(header(FILE, lambda h: first(h).update(shape="2x10")), 3, "damaged"),
    "offsets backward": Case(_offsets(80, 0), 3, "damaged"),
    "offsets negative": Case(_offsets(-80, 0), 3, "damaged"),
    "offsets past the end": Case(_offsets(0, 1 << 40), 3, "damaged"),
    "offsets of text": Case(_offsets("0", "80"), 3, "damaged"),
    "offsets overlap": Case(header(FILE, _overlap), 3, "damaged"),
    "offsets leave a hole": Case(_offsets(4, 84), 3, "damaged"),
    "name with a line break": Case(header(FILE, lambda h: {**h, "a\nb": first(h)}), 3, "is not a parameter's name"),
    "name with a path": Case(header(FILE, lambda h: {**h, "../x": first(h)}), 3, "is not a parameter's name"),
    "name in other letters": Case(header(FILE, lambda h: {**h, "ａ": first(h)}), 3, "is not a parameter's name"),
    "name twice but for the prefix": Case(_again_without_prefix, 3, f"{QUERY_A} appears twice"),
    "integers": Case(weights("lora", put(QUERY_A, np.ones((2, 10), np.int64))), 3, "has type I64"),
    "booleans": Case(weights("lora", put(QUERY_A, np.ones((2, 10), bool))), 3, "has type BOOL"),
    "type a list": Case(header(FILE, lambda h: first(h).update(dtype=["F32"])), 3, "has type ['F32']"),
    "unknown type": Case(header(FILE, lambda h: first(h).update(dtype="F128")), 3, "has type F128"),
    "NaN": Case(weights("lora", put(QUERY_A, setting((1, 3), np.nan))), 3, f"{QUERY_A} holds NaN or infinite"),
    "infinity": Case(weights("lora", put(QUERY_A, setting((1, 3), -np.inf))), 3, f"{QUERY_A} holds NaN or infinite"),
    "settings empty": Case(write(SETTINGS, ""), 3, f"{CONFIG}: not valid JSON"),
    "settings not JSON": Case(write(SETTINGS, "peft_type: LORA"), 3, f"{CONFIG}: not valid JSON"),
    "settings a list": Case(write(SETTINGS, "[]"), 3, "must hold a JSON object"),
    "settings not UTF-8": Case(write(SETTINGS, b'{"peft_type": "\xff"}'), 3, "not UTF-8 text"),
    "settings with a surrogate": Case(write(SETTINGS, '{"peft_type": "\\ud800"}'), 3, "surrogate"),
    "settings deep": Case(write(SETTINGS, '{"a":' * 50_000), 3, "nested too deeply"),
    "settings of 17 MB": Case(write(SETTINGS, " " * (17 << 20)), 3, "larger than"),
    "settings a FIFO": Case(fifo(SETTINGS), 3, f"{CONFIG}: not a regular file"),
    "key twice": Case(replace_text(SETTINGS, '"r": 2', '"r": 2, "r": 2'), 3, "the key 'r' appears twice"),
    "number NaN": Case(raw_config("lora", "lora_alpha", "NaN"), 3, "NaN is not a number"),
    "number 1e999": Case(raw_config("lora", "lora_alpha", "1e999"), 3, "'1e999' is out of range"),
    "number of 5000 digits": Case(raw_config("lora", "lora_alpha", "1" * 5000), 3, "not valid JSON"),
    "number of 400 digits": Case(
        raw_config("lora", "lora_alpha", "1" * 400), 3, "lora_alpha must be a positive number"
    ),
    "method unknown": Case(config("lora", peft_type="IA4"), 3, "peft_type 'IA4' is not a method"),
    "method missing": Case(config("lora", "peft_type"), 3, "peft_type None is not a method"),
    "method is a list": Case(config("lora", peft_type=["LORA"]), 3, "is not a method"),
    "method is an essay": Case(config("lora", peft_type="x" * 100_000), 3, "is not a method"),
    "method with escapes": Case(config("lora", peft_type="\x1b[2Jx"), 3, "is not a method"),
}


@cases(lora=FILES)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)


@pytest.mark.parametrize("name", ["no folder", "weights cut in the data", "key twice", "method unknown", "NaN"])
def test_inspect(scene: Scene, cli: Cli, name: str) -> None:
    case = FILES[name]
    case.change(scene)
    cli.refuses(case.code, case.said, "inspect", "-q", scene.lora)


def test_the_second_adapter(scene: Scene, cli: Cli) -> None:
    refuses_export(scene, cli, "lora2 lora", FILES["weights cut in the data"])

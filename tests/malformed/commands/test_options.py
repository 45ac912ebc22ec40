"""Options that contradict each other, and outputs that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.malformed.breaks import all_of, append, fifo, put, weights, write
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

OPTIONS: Table = {
    "no mode": Case(nothing, 2, "Missing option '--mode'", "--top-k 2"),
    "unknown mode": Case(nothing, 2, "'magic' is not one of", "--mode magic"),
    "unknown option": Case(nothing, 2, "No such option '--speed'", "--mode dynamic --speed 9"),
    "unknown precision": Case(nothing, 2, "'int2' is not one of", "--mode dynamic --precision int2"),
    "top-k is text": Case(nothing, 2, "'two' is not a valid integer", "--mode dynamic --top-k two"),
    "static without a task": Case(nothing, 2, "give --task, one of cola, mnli, stsb", "--mode static --top-k 2"),
    "static of an unknown task": Case(
        nothing, 2, "unknown task 'rte'; the adapter has cola", "--mode static --top-k 2 --task rte"
    ),
    "static of the task base": Case(
        nothing, 2, "would be the base model itself", "--mode static --top-k 2 --task base"
    ),
    "a task, conditioned": Case(nothing, 2, "--task is for --mode static", "--mode conditioned --top-k 2 --task cola"),
    "a task, dynamic": Case(nothing, 2, "--task is for --mode static", "--mode dynamic --top-k 2 --task cola"),
    "EPT with a route": Case(
        nothing,
        2,
        "--route is for HydraLoRA, Lily, MixLoRA and TuckA adapters; this one",
        "--mode conditioned --top-k 2 --route 0:1",
    ),
    "EPT with routing": Case(
        nothing,
        2,
        "--routing is for Lily and TuckA adapters; this one is ept",
        "--mode dynamic --top-k 2 --routing row",
    ),
    "TuckA with a top-k": Case(
        nothing, 2, "--top-k is for EPT adapters; this one is tucka", "--mode dynamic --top-k 2", "tucka"
    ),
    "EPT with calibration data": Case(
        write("d.jsonl", '{"text": "x"}'),
        2,
        "measures the routes of HydraLoRA, Lily, MixLoRA and TuckA adapters",
        "--mode conditioned --top-k 2 --calibration-data {root}/d.jsonl",
    ),
    "dynamic with calibration data": Case(
        write("d.jsonl", '{"text": "x"}'),
        2,
        "--calibration-data",
        "--mode dynamic --calibration-data {root}/d.jsonl",
        "tucka",
    ),
    "calibration data missing": Case(
        nothing, 3, "d.jsonl: cannot be read", "--mode static --calibration-data {root}/d.jsonl", "tucka"
    ),
    "calibration data empty": Case(
        write("d.jsonl", "\n"), 3, "d.jsonl: holds no rows", "--mode static --calibration-data {root}/d.jsonl", "tucka"
    ),
    "calibration data a FIFO": Case(
        fifo("d.jsonl"), 3, "d.jsonl: not a regular file", "--mode static --calibration-data {root}/d.jsonl", "tucka"
    ),
    "calibration data of no text": Case(
        write("d.jsonl", '{"label": 1}'),
        3,
        "d.jsonl, line 1: must be an object with a string 'text'",
        "--mode static --calibration-data {root}/d.jsonl",
        "tucka",
    ),
    "calibration data of an unknown task": Case(
        write("d.jsonl", '{"text": "x", "task": "rte"}'),
        3,
        "unknown task 'rte'",
        "--mode static --calibration-data {root}/d.jsonl",
        "tucka",
    ),
    "fp16 that overflows": Case(
        weights("lora", put("layer.0.query.lora_A.weight", np.full((64, 10), 1e5, "f4"))),
        3,
        "has rank 2",
        "--mode conditioned --precision fp16",
        "lora",
    ),
}

EXISTING: Table = {
    "a file": Case(write("out/b", "x"), 2, "b: exists and is not a folder"),
    "a link": Case(lambda s: (s.out / "b").symlink_to(s.bundle), 2, "b: exists and is not a folder"),
    "a FIFO": Case(fifo("out/b"), 2, "b: exists and is not a folder"),
    "a folder of something else": Case(
        all_of(lambda s: (s.out / "b").mkdir(), write("out/b/notes.txt", "x")), 2, "b: exists and is not an eptx bundle"
    ),
    "a bundle with a file beside": Case(
        all_of(lambda s: s.bundle.rename(s.out / "b"), write("out/b/notes.txt", "x")),
        2,
        "holds 'notes.txt', which is not of the bundle",
    ),
    "a bundle, and the export fails": Case(
        lambda s: s.bundle.rename(s.out / "b"), 3, "top-k is 9", "--mode conditioned --top-k 9"
    ),
    "below a file": Case(lambda s: (s.out.rmdir(), s.out.write_text("")), 2, "cannot be written: Not a directory"),
}


@cases(ept=OPTIONS, ept__output=EXISTING)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)


USAGE: dict[str, tuple[str, str]] = {
    "no arguments": ("export", "Missing argument"),
    "no output": ("export {base} {lora} --mode conditioned", "Missing option '-o'"),
    "one path": ("export {lora} -o {out}/b --mode conditioned", "give BASE and ADAPTER"),
    "output is the adapter": (
        "export {base} {lora} -o {lora} --mode conditioned",
        "lora: exists and is not an eptx bundle",
    ),
    "output is the base": (
        "export {base} {lora} -o {base} --mode conditioned",
        "base: exists and is not an eptx bundle",
    ),
    "output is nothing": ("export {base} {lora} -o / --mode conditioned", "/: "),
    "output of a long name": ("export {base} {lora} -o {out}/{long} --mode conditioned", "File name too long"),
    "unknown verb": ("exprot {base}", "No such command 'exprot'"),
    "inspect nothing": ("inspect", "Missing argument"),
    "inspect two bundles": ("inspect {bundle} {tiny}", "inspect takes one bundle"),
    "plot a bundle": ("inspect {bundle} --plot {out}/p.png", "--plot draws adapters, and bundles with weights"),
    "plot to an unknown format": ("inspect {ept} --top-k 2 --plot {out}/p.xyz", "p.xyz: cannot be written"),
    "plot into a missing folder": ("inspect {ept} --top-k 2 --plot {out}/x/p.png", "p.png: cannot be written"),
    "plot without top-k": ("inspect {ept} --plot {out}/p.png", "give --top-k"),
    "run texts and a file": ("run {tiny} good --input {root}/x.jsonl", "give TEXTS or --input, not both"),
    "run in batches of none": ("run {tiny} good --batch-size 0", "--batch-size"),
    "run on an unknown provider": ("run {tiny} good --provider tpu", "'tpu' is not one of"),
    "validate on an unknown provider": ("validate {bundle} --provider tpu", "--provider 'tpu': choose from"),
    "validate with a sound base gone": ("validate {tiny}", "give --base DIR"),
    "bench of no shape": ("bench {tiny} --shapes 1", "expected BATCHxLENGTH"),
    "bench of an empty shape": ("bench {tiny} --shapes 0x4", "expected BATCHxLENGTH"),
    "bench of odd digits": ("bench {tiny} --shapes ²x4", "expected BATCHxLENGTH"),
    "bench of an unknown task": ("bench {tiny} --task rte", "unknown task 'rte'"),
    "bench against nothing": ("bench {tiny} --against {out}/x.onnx", "no such file"),
    "bench past the model's length": ("bench {tiny} --shapes 1x99", "1x99: the model reads at most 16 tokens a row"),
}


def _fill(scene: Scene, text: str) -> list[str]:
    names = {path.name: path for path in scene.root.iterdir()}
    return [part.format(**names, root=scene.root, long="n" * 300) for part in text.split()]


@pytest.mark.parametrize("name", USAGE)
def test_usage(scene: Scene, cli: Cli, name: str) -> None:
    command, said = USAGE[name]
    cli.refuses(2, said, *_fill(scene, command), "-q")
    assert list(scene.out.iterdir()) == []


INPUT: dict[str, tuple[int, str, str]] = {
    "inspect nothing there": (3, "inspect {out}/x", "no such adapter folder"),
    "inspect a file": (3, "inspect {root}/base.onnx", "no such adapter folder"),
    "inspect the base": (3, "inspect {base}", "adapter_model.safetensors is missing"),
    "inspect a long name": (3, "inspect {long}", "File name too long"),
    "plot LoRA": (5, "inspect {lora} --plot {out}/p.png", "lora has none per task"),
    "export a long name": (3, "export {base} {long} -o {out}/b --mode conditioned", "File name too long"),
    "export of adapters that name no base": (
        2,
        "export {lora} {lora2} -o {out}/b --mode conditioned",
        "adapter_config.json names none (base_model_name_or_path=None): give BASE and ADAPTER",
    ),
    "run nothing there": (3, "run {out}/x good", "x: no such bundle"),
    "run an adapter": (3, "run {lora} good", "not an eptx bundle"),
    "run an unknown task": (3, "run {tiny} good --task rte", "no task 'rte'; this bundle has sst2, mnli, stsb, base"),
    "run without a task": (3, "run {tiny} good", "name a task"),
    "run a file that is not there": (3, "run {tiny} --task sst2 --input {out}/x.jsonl", "x.jsonl: cannot be read"),
    "run a file of something else": (3, "run {tiny} --task sst2 --input {root}/base.onnx", "base.onnx, line 1: not"),
    "run without a tokenizer": (3, "run {bundle} good --task cola", "no tokenizer.json; give arrays"),
    "run on CUDA": (
        5,
        "run {tiny} good --task sst2 --provider cuda",
        "is built without it; pip uninstall",
    ),
    "validate on CUDA": (5, "validate {tiny} --provider cuda", "is built without it; pip uninstall"),
    "validate data without a tokenizer": (3, "validate {bundle} --data {root}/base.onnx", "base.onnx, line 1: not"),
    "validate an adapter": (3, "validate {lora}", "not an eptx bundle"),
    "validate with a broken adapter": (3, "validate {bundle} --adapter {base}", "adapter_model.safetensors is missing"),
    "validate with another method": (2, "validate {bundle} --adapter {lora} --top-k 2", "--top-k is for EPT"),
    "validate with a missing base": (3, "validate {bundle} --base {out}/x", "no such base model folder"),
    "bench an adapter": (3, "bench {lora}", "not an eptx bundle"),
    "bench against a bundle that is none": (3, "bench {tiny} --against {lora}", "not an eptx bundle"),
}


@pytest.mark.parametrize("name", INPUT)
def test_input(scene: Scene, cli: Cli, name: str) -> None:
    code, command, said = INPUT[name]
    cli.refuses(code, said, *_fill(scene, command), "-q")
    assert list(scene.out.iterdir()) == []


def test_bench_of_a_broken_file(scene: Scene, cli: Cli) -> None:
    append(scene.onnx, b"\xff" * 9)
    cli.refuses(2, "base.onnx: ONNX Runtime does not load it", "bench", scene.tiny, "--against", scene.onnx)


def test_fp16_overflow(scene: Scene, cli: Cli) -> None:
    """A weight of 1e5 fits float32 and not float16."""
    scene.lora.rename(scene.root / "x")
    from tests.exporter.validation.adapters import write_lora

    write_lora(scene.lora, {"layer.0.query": (12, 10)}, seed=1, rank=40)
    weights("lora", put("layer.0.query.lora_A.weight", lambda a: a * 1e6))(scene)
    cli.refuses(6, "past float16's 65504", *scene.export_args("lora", "--mode conditioned --precision fp16"))
    assert list(scene.out.iterdir()) == []


def test_output_folder_that_is_empty_is_taken_and_given_back(scene: Scene, cli: Cli) -> None:
    (scene.out / "b").mkdir()
    cli.refuses(2, "give --top-k", *scene.export_args("ept", "--mode dynamic"))
    assert [path.name for path in scene.out.iterdir()] == ["b"]
    assert list((scene.out / "b").iterdir()) == []


def test_leftover_of_an_export_that_was_killed(scene: Scene, cli: Cli) -> None:
    (scene.out / ".b.eptx-00").mkdir()
    os.close(os.open(scene.out / ".b.eptx-00" / "model.onnx", os.O_CREAT))
    cli.refuses(2, "give --top-k", *scene.export_args("ept", "--mode dynamic"))
    assert list(Path(scene.out).iterdir()) == []

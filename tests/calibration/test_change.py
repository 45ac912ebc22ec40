"""`eptx.add` and `eptx.remove`: the same bytes as an export of all adapters, without the base."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import eptx
from eptx.bundle import read_bundle
from eptx.bundle.origin import read_origin
from eptx.errors import AdapterError, BaseModelError, BundleError, EptxError, NotSupportedError, UsageError
from eptx.exporter import ExportOptions
from eptx.exporter.bases import BaseGraph, load_transformers
from eptx.exporter.steps import load
from eptx.files.safe_files import hash_file
from eptx.files.strict_json import dump_json
from tests.exporter.validation.adapters import changed, linear_shapes, write_ept, write_lora
from tests.support.decoders import write_decoder
from tests.support.encoder_decoders import KeptGraphs, write_encoder_decoder

GOLDEN = Path(__file__).parents[1] / "golden" / "ept_bert48" / "base"
#: Endings of the modules that three adapters adapt: the last one adapts some that no other does.
ENCODER = (("self.query", "self.value"), ("self.query",), ("self.query", "self.key", "output.dense"))
DECODER = (("q_proj", "v_proj"), ("v_proj", "down_proj"), ("q_proj", "k_proj", "up_proj"))
BOTH = (("SelfAttention.q", "SelfAttention.v"), ("wi",), ("SelfAttention.q", "EncDecAttention.k", "wo"))
RANKS = (4, 2, 8)


def write_adapters(base: Path, folder: Path, endings: Sequence[Sequence[str]]) -> list[Path]:
    """Adapters of other ranks, `a`, `b` and `c`."""
    return [
        write_lora(folder / name, linear_shapes(base, own), seed=seed, rank=rank)
        for seed, (name, own, rank) in enumerate(zip("abc", endings, RANKS, strict=False))
    ]


@dataclass(frozen=True)
class Made:
    """A base with three adapters; a bundle of the first two, and one of all."""

    base: Path
    adapters: Sequence[Path]
    two: Path
    three: Path


def make(folder: Path, base: Path, endings: Sequence[Sequence[str]], options: ExportOptions) -> Made:
    adapters = write_adapters(base, folder, endings)
    two, three = folder / "two", folder / "three"
    eptx.export(base, adapters[:2], two, options)
    eptx.export(base, adapters, three, options)
    return Made(base, adapters, two, three)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"), GOLDEN, ENCODER, ExportOptions(mode="conditioned"))


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base is traced once, and not anew for every export of it."""
    known: dict[tuple[object, ...], BaseGraph] = {}

    def load_once(folder: Path, **options: object) -> BaseGraph:
        key = folder, options["provider"], options["class_name"]
        if key not in known:
            known[key] = load_transformers(folder, **options)  # type: ignore[arg-type]
        return replace(known[key], model=known[key].model.clone())

    (tmp_path / "graphs").mkdir()
    monkeypatch.setattr(load, "load_transformers", load_once)
    monkeypatch.setattr(load, "load_encoder_decoder", KeptGraphs(tmp_path / "graphs"))


def content(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}


def is_the_same(bundle: Path, other: Path) -> None:
    mine, theirs = content(bundle), content(other)
    assert [*mine] == [*theirs]
    assert [name for name in mine if mine[name] != theirs[name]] == []


def both_ways(made: Made, folder: Path) -> None:
    """One adapter put on two, and taken off three."""
    eptx.add(made.two, made.adapters[2:], folder / "added")
    is_the_same(folder / "added", made.three)
    eptx.remove(made.three, ["c"], folder / "removed")
    is_the_same(folder / "removed", made.two)


def test_an_encoder(made: Made, tmp_path: Path) -> None:
    before = content(made.two)
    both_ways(made, tmp_path)
    assert content(made.two) == before
    origin = read_origin(read_bundle(tmp_path / "added"))
    assert (origin.base, origin.adapters) == (str(made.base), tuple(map(str, made.adapters)))
    assert read_origin(read_bundle(tmp_path / "removed")).adapters == tuple(map(str, made.adapters[:2]))


def test_what_was_added_is_what_was_trained(made: Made, tmp_path: Path) -> None:
    """The judge of every bundle finds base and adapters by the file beside it."""
    eptx.add(made.two, made.adapters[2:], tmp_path / "added")
    report = eptx.validate(tmp_path / "added", eptx.ValidateOptions())
    assert report.passed, report.reason
    assert [task.name for task in report.manifest.tasks] == ["a", "b", "c", "base"]


def test_other_precisions(traced_once: None, tmp_path: Path) -> None:
    for precision in ("fp16", "int8", "int4"):
        options = ExportOptions(mode="conditioned", precision=precision)  # type: ignore[arg-type]
        both_ways(make(tmp_path / precision, GOLDEN, ENCODER, options), tmp_path / precision)


def test_a_decoder(tmp_path: Path) -> None:
    base = write_decoder("llama", tmp_path / "base")
    both_ways(make(tmp_path, base, DECODER, ExportOptions(mode="conditioned", precision="int4")), tmp_path)


def test_an_encoder_decoder(traced_once: None, tmp_path: Path) -> None:
    base = write_encoder_decoder("t5", tmp_path / "base", num_layers=1)
    both_ways(make(tmp_path, base, BOTH, ExportOptions(mode="conditioned")), tmp_path)


def test_dora(traced_once: None, tmp_path: Path) -> None:
    """Its norms are computed from the base's weights, which a bundle in fp32 holds as they are, and one in fp16 not."""
    adapters = write_adapters(GOLDEN, tmp_path, ENCODER)
    for adapter in adapters[1:]:
        _make_dora(adapter)
    options = ExportOptions(mode="conditioned")
    eptx.export(GOLDEN, adapters[:2], tmp_path / "two", options)
    eptx.export(GOLDEN, adapters, tmp_path / "three", options)
    both_ways(Made(GOLDEN, adapters, tmp_path / "two", tmp_path / "three"), tmp_path)
    eptx.remove(tmp_path / "three", ["b", "c"], tmp_path / "one")
    eptx.export(GOLDEN, adapters[:1], tmp_path / "again", replace(options, tasks=["a"]))
    is_the_same(tmp_path / "one", tmp_path / "again")

    eptx.export(GOLDEN, adapters[:1], tmp_path / "half", replace(options, precision="fp16"))
    with pytest.raises(NotSupportedError, match=r"from the base's weights, which half holds in fewer bits: "):
        eptx.add(tmp_path / "half", adapters[1:2], tmp_path / "out")


def _make_dora(adapter: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in [name for name in tensors if name.endswith("lora_B.weight")]:
        width = len(tensors[name])
        vector = np.linspace(0.5, 1.5, width, dtype=np.float32)
        tensors[name.replace("lora_B.weight", "lora_magnitude_vector")] = vector
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))


def test_an_onnx_base(made: Made, tmp_path: Path) -> None:
    """Its modules were found by their weights, as names do not say them: without the base others are not looked for."""
    onnx = tmp_path / "base.onnx"
    _write_onnx_base(onnx)
    options = ExportOptions(mode="conditioned", base_onnx=onnx)
    eptx.export(GOLDEN, made.adapters[:2], tmp_path / "two", options)
    again = write_lora(tmp_path / "d", linear_shapes(GOLDEN, ("self.value",)), seed=7)
    eptx.export(GOLDEN, [*made.adapters[:2], again], tmp_path / "three", options)
    eptx.add(tmp_path / "two", [again], tmp_path / "added")
    is_the_same(tmp_path / "added", tmp_path / "three")
    with pytest.raises(
        NotSupportedError, match=r"^no task of two adapts .*, and names do not find that in its ONNX base"
    ):
        eptx.add(tmp_path / "two", made.adapters[2:], tmp_path / "out")


def _write_onnx_base(path: Path) -> None:
    """The base as an ONNX file whose nodes and weights have no names that say anything."""
    import onnx_ir as ir

    model = load_transformers(GOLDEN).model
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    for index, value in enumerate(list(model.graph.initializers.values())):
        value.name = f"w{index}"
    ir.save(model, path)


def test_names(traced_once: None, made: Made, tmp_path: Path) -> None:
    """Tasks keep the names that they have; new ones are called as their folders are, or as the caller says."""
    eptx.export(made.base, made.adapters[:1], tmp_path / "one", ExportOptions(mode="conditioned"))
    eptx.add(tmp_path / "one", made.adapters[1:], tmp_path / "added")
    options = ExportOptions(mode="conditioned", tasks=["task0", "b", "c"])
    eptx.export(made.base, made.adapters, tmp_path / "named", options)
    is_the_same(tmp_path / "added", tmp_path / "named")
    with pytest.raises(UsageError, match=r"^two has a task 'a' already: name the new one with --task"):
        eptx.add(made.two, made.adapters[:1], tmp_path / "out")
    copy = shutil.copytree(made.adapters[0], tmp_path / "copy" / "a")
    eptx.add(made.two, [copy], tmp_path / "out", tasks=["other"])
    options = ExportOptions(mode="conditioned", tasks=["a", "b", "other"])
    eptx.export(made.base, [*made.adapters[:2], copy], tmp_path / "all", options)
    is_the_same(tmp_path / "out", tmp_path / "all")


def test_in_place_and_by_command(made: Made, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made.two, bundle)
    told = _command("add", bundle, made.adapters[2], "-o", bundle, "--json", "-q")
    assert json.loads(told)["tasks"] == ["a", "b", "c", "base"]
    is_the_same(bundle, made.three)
    told = _command("remove", bundle, "c", "-o", bundle, "-q")
    assert "tasks a, b, base" in told
    is_the_same(bundle, made.two)


def _command(*arguments: str | Path) -> str:
    told = subprocess.run([sys.executable, "-m", "eptx", *arguments], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_nothing_heavy_is_loaded(made: Made, tmp_path: Path) -> None:
    """The command is as fast as its imports let it be."""
    code = (
        "import sys, eptx; from pathlib import Path; a, b, c = map(Path, sys.argv[1:]); eptx.add(a, [b], c);"
        "print([m for m in ('torch', 'transformers', 'peft', 'onnxruntime', 'optimum') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, made.two, made.adapters[2], tmp_path / "out"], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout.strip()) == (0, "[]"), told.stderr


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a, out: changed(a, out, _widen), AdapterError, r"are not of one base: .*query has widths"),
        (lambda a, out: changed(a, out, _rename), BaseModelError, r"adapted modules are not found in the base graph"),
        (lambda a, out: changed(a, out, _unknown), NotSupportedError, r"has no bert\.nothing\.weight, which the"),
        (lambda a, out: GOLDEN.parents[1] / "tucka_bert48" / "adapter", UsageError, "holds LoRA adapters"),
    ],
)
def test_an_adapter_that_does_not_fit(
    made: Made,
    tmp_path: Path,
    change: Callable[[Path, Path], Path],
    error: type[EptxError],
    message: str,
) -> None:
    adapter = change(made.adapters[1], tmp_path / "new")
    with pytest.raises(error, match=message):
        eptx.add(made.two, [adapter], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _widen(tensors: dict[str, object]) -> None:
    import numpy as np

    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    tensors[name] = np.concatenate([tensors[name]] * 2, axis=1)  # type: ignore[list-item]


def _rename(tensors: dict[str, object]) -> None:
    for name in [*tensors]:
        tensors[name.replace("query", "nothing")] = tensors.pop(name)


def _unknown(tensors: dict[str, object]) -> None:
    import numpy as np

    tensors["base_model.model.bert.nothing.weight"] = np.ones((3, 48), np.float32)


@pytest.mark.parametrize(("mode", "task"), [("static", "a"), ("dynamic", None)])
def test_a_bundle_of_another_kind(made: Made, tmp_path: Path, mode: str, task: str | None) -> None:
    adapters, top_k = [made.adapters[0]], None
    if mode == "dynamic":
        adapters, top_k = [write_ept(tmp_path / "ept", linear_shapes(GOLDEN, ENCODER[0]), seed=1)], 2
    tasks = None if task is None else [task]
    options = ExportOptions(mode=mode, tasks=tasks, top_k=top_k)  # type: ignore[arg-type]
    eptx.export(made.base, adapters, tmp_path / "bundle", options)
    wanted = r"^bundle is a (static lora|dynamic ept) bundle: .*conditioned LoRA bundles only; export base and adapters"
    with pytest.raises(NotSupportedError, match=wanted):
        eptx.add(tmp_path / "bundle", made.adapters[1:], tmp_path / "out")
    with pytest.raises(NotSupportedError, match=wanted):
        eptx.remove(tmp_path / "bundle", ["a"], tmp_path / "out")


def test_tasks_that_cannot_go(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^two has no task 'c' to remove; it has a, b$"):
        eptx.remove(made.two, ["c"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"^two has no task 'base' to remove; it has a, b$"):
        eptx.remove(made.two, ["base"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"^two has no task but a, b, and a bundle has at least one$"):
        eptx.remove(made.two, ["a", "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["folders"].pop(), r"^adapters\.json: has 1 adapters for 2 tasks"),
        (lambda r: r["graphs"].pop("model.onnx"), r"^adapters\.json: is about "),
        (lambda r: _table(r).update(sizes=[4, 2, 1]), r"and not as it says of "),
        (lambda r: _table(r).update(sizes=[4, 99]), r"and not as it says of "),
        (lambda r: _table(r).update(axis=5), r"and not as it says of "),
        (lambda r: _table(r).update(part="nothing"), r"is no update: "),
        (lambda r: _tables(r).update(nothing=[dict(_table(r))]), r"the model has no constant nothing"),
        (lambda r: r.update(precision="fp8"), r"^adapters\.json: precision must be one of "),
    ],
)
def test_a_record_that_lies(
    made: Made, tmp_path: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made.two, bundle)
    record = json.loads((bundle / "adapters.json").read_text())
    change(record)
    (bundle / "adapters.json").write_bytes(dump_json(record))
    manifest = json.loads((bundle / "eptx.json").read_text())
    size, digest = hash_file(bundle / "adapters.json", error=BundleError)
    manifest["files"]["adapters.json"] = {"size": size, "sha256": digest}
    (bundle / "eptx.json").write_bytes(dump_json(manifest))
    with pytest.raises(BundleError, match=message):
        eptx.add(bundle, made.adapters[2:], tmp_path / "out")


def _tables(record: Mapping[str, object]) -> dict[str, list[dict[str, object]]]:
    tables: dict[str, list[dict[str, object]]] = record["graphs"]["model.onnx"]["tables"]  # type: ignore[index]
    return tables


def _table(record: Mapping[str, object]) -> dict[str, object]:
    return next(iter(_tables(record).values()))[0]

"""A small base with an adapter of each method, and the command line to try them on.

The base is made by hand, as an .onnx file and as the transformers folder that it could come from, so that an
export takes a fraction of a second and every file can be broken on its own.
"""

from __future__ import annotations

import json
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import save_file

from eptx.calibration import export_bundle
from eptx.cli import main
from eptx.exporter import ExportOptions
from tests.exporter.validation.adapters import add_heads, write_ept, write_lora, write_tucka
from tests.support.tiny_bundle import write_tiny

#: module -> [out, in]; every module has another shape
MODULES = {"layer.0.query": (12, 10), "layer.0.dense": (14, 12)}
WORDS, HIDDEN = 20, 14
PREFIX = "base_model.model."

#: What must follow ``export BASE ADAPTER --base-onnx FILE -o OUT`` for each adapter of the scene to succeed.
MODE = {
    "ept": "--mode conditioned --top-k 2",
    "tucka": "--mode dynamic",
    "lora": "--mode conditioned",
    "lora2": "--mode conditioned",
}


@dataclass(frozen=True)
class Scene:
    """A folder of its own for one test.

    Attributes:
        root: holds ``base/`` (config.json, model.safetensors), ``base.onnx``, ``ept/`` (with task heads),
            ``tucka/``, ``lora/``, ``lora2/``, ``bundle/`` (exported from ept), ``tiny/`` (a bundle with a
            tokenizer), and ``out/``, where exports write.
    """

    root: Path

    def __getattr__(self, name: str) -> Path:
        return self.root / name

    @property
    def onnx(self) -> Path:
        return self.root / "base.onnx"

    def export_args(self, adapters: str, settings: str | None = None, *, base: bool = True) -> list[str]:
        """The arguments of an export to ``out/b``.

        Args:
            adapters: folders of the scene, separated by spaces.
            settings: the mode and what belongs to it; what makes a sound adapter succeed if None.
            base: whether to give the base's folder besides its .onnx file.
        """
        folders = [str(self.root / name) for name in adapters.split()]
        start = [str(self.base)] if base else []
        more = (MODE[adapters.split()[0]] if settings is None else settings).format(root=self.root).split()
        files = ["--base-onnx", str(self.onnx), "-o", str(self.out / "b")]
        return ["export", "--quiet", *start, *folders, *files, *more]


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class Cli:
    """Runs ``eptx`` in this process; captures what anything in it, C++ included, writes."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *args: str | Path) -> Result:
        self._capture.readouterr()
        with mock.patch.object(sys, "argv", ["eptx", *map(str, args)]), pytest.raises(SystemExit) as end:
            main()
        out, err = self._capture.readouterr()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, out, err)

    def refuses(self, code: int, said: str, *args: str | Path) -> None:
        """Checks that a command ends with a documented exit code and one line that says why."""
        check_refusal(self(*args), code, said)


def check_refusal(result: Result, code: int, said: str) -> None:
    """One line on standard error, nothing on standard output, the right exit code."""
    assert result.err.startswith("error: "), result
    assert result.err.endswith("\n"), result
    assert len(result.err.splitlines()) == 1, result
    assert said in result.err, result
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert all(c.isprintable() for c in result.err[:-1]), result
    assert len(result.err) < 1200, result
    assert result.out == ""
    assert result.code == code, result


@contextmanager
def leaves_nothing(folder: Path) -> Iterator[None]:
    """Checks that a block changes no file below ``folder`` and leaves none in the folder for temporary ones."""
    before = snapshot(folder)
    temporary = folder.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    with (
        mock.patch.dict("os.environ", TMPDIR=str(temporary)),
        mock.patch.object(tempfile, "tempdir", str(temporary)),
    ):
        yield
    assert snapshot(folder) == before
    # torch and ONNX Runtime leave one thing each, when they are first used
    assert [path.name for path in temporary.iterdir() if not path.name.startswith(("torchinductor", ".ses"))] == []


def snapshot(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Every path below a folder; for those that are not folders, size and time of the last change."""
    found: dict[str, tuple[int, int] | None] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = None if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
    return found


def make_scene(root: Path) -> Scene:
    """Writes a whole scene."""
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in MODULES.items()}
    write_onnx(root / "base.onnx", weights)
    (root / "base").mkdir()
    save_file({f"{name}.weight": weight for name, weight in weights.items()}, root / "base" / "model.safetensors")
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": WORDS,
        "hidden_size": HIDDEN,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
    }
    (root / "base" / "config.json").write_text(json.dumps(config))
    write_ept(root / "ept", MODULES, seed=1, sizes=(2, 3, 4), rank=2)
    add_heads(root / "ept", {"cola": 2, "mnli": 3, "stsb": 1}, HIDDEN, pooling="pooler")
    write_tucka(root / "tucka", MODULES, seed=2, rank=2)
    write_lora(root / "lora", MODULES, seed=3, rank=2)
    write_lora(root / "lora2", MODULES, seed=4, rank=3)
    write_tiny(root / "tiny", tokenizer=True)
    (root / "out").mkdir()
    scene = Scene(root)
    options = ExportOptions(mode="conditioned", top_k=2, base_onnx=scene.onnx)
    export_bundle(scene.base, [scene.ept], scene.bundle, options)
    return scene


def write_onnx(
    path: Path, weights: Mapping[str, np.ndarray], *, change: Callable[[onnx.ModelProto], Any] | None = None
) -> Path:
    """``last_hidden_state`` = relu(words[input_ids] · query) · dense, ``pooler_output`` its first position."""
    rng = np.random.default_rng(6)
    numbers = {"words": rng.normal(size=(WORDS, 10)).astype(np.float32), "first": np.array(0)}
    numbers |= {f"{name}.weight": np.ascontiguousarray(weight.T) for name, weight in weights.items()}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "layer.0.query.weight"], ["q"], name="/layer.0.query/MatMul"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=1),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("MatMul", ["r", "layer.0.dense.weight"], ["last_hidden_state"], name="/layer.0.dense/MatMul"),
        helper.make_node("Gather", ["last_hidden_state", "first"], ["pooler_output"], axis=1),
    ]
    text = ["input_ids", "attention_mask"]
    graph = helper.make_graph(
        nodes,
        "base",
        [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"]) for name in text],
        [
            helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, ["batch", "length", HIDDEN]),
            helper.make_tensor_value_info("pooler_output", onnx.TensorProto.FLOAT, ["batch", HIDDEN]),
        ],
        [numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def copy_scene(original: Scene, root: Path) -> Scene:
    """The same files, to break."""
    shutil.copytree(original.root, root, symlinks=True, dirs_exist_ok=True)
    return Scene(root)


@dataclass(frozen=True)
class Case:
    """How to break a scene, and how its export ends then.

    Attributes:
        change: breaks the scene.
        code: the exit code.
        said: a part of the one line on standard error.
        settings: of the export; see `Scene.export_args`.
        adapters: folders of the scene, where not the table's own.
    """

    change: Callable[[Scene], Any]
    code: int
    said: str
    settings: str | None = None
    adapters: str | None = None


Table = dict[str, Case]


def cases(**tables: Table) -> pytest.MarkDecorator:
    """Parametrizes a test by ``adapter`` (the keyword's name, up to a double underscore) and ``case``."""
    rows = [
        pytest.param(name.partition("__")[0], case, id=f"{name}: {title}")
        for name, table in tables.items()
        for title, case in table.items()
    ]
    return pytest.mark.parametrize(("adapter", "case"), rows)


def refuses_export(scene: Scene, cli: Cli, adapter: str, case: Case, *, base: bool = True) -> None:
    """Breaks a scene and checks that its export is refused and leaves nothing behind."""
    case.change(scene)
    arguments = scene.export_args(case.adapters or adapter, case.settings, base=base)
    with leaves_nothing(scene.root):
        cli.refuses(case.code, case.said, *arguments)


def nothing(scene: Scene) -> None:
    """Breaks nothing: the arguments are what is wrong."""

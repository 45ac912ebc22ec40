"""DeBERTa-v2 projects its relative positions, which have no rows, with adapted layers: each row gets its own task's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from peft import get_peft_model
from transformers import DebertaV2Config, DebertaV2Model

from eptx.calibration import export_bundle
from eptx.errors import NotSupportedError, UsageError
from eptx.exporter import ExportOptions, Route, read_adapter
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.bases import BaseGraph, load_transformers, locate
from eptx.exporter.bases.passes.deberta import allow_positions_per_row
from eptx.exporter.methods.method import method_of
from eptx.exporter.quiet import quiet
from eptx.exporter.validation import ValidateOptions, validate_bundle
from eptx.peft import EptConfig
from eptx.runtime.ort.kernels import kernel_library
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_lora, write_tucka
from tests.support.trained import by_task, trained_model

TOLERANCE = 2e-5
SHAPES = ((4, 9), (1, 5), (6, 2), (1, 16))  # the last has as many positions as there are relative ones
TASKS = ("a", "b", "c")
ROUTES: dict[str | None, Route] = {"a": Route(0, (0.9, 0.2)), "b": Route(2, (0.1, 0.7)), "c": Route(1, (0.5, 0.5))}

_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
_POSITIONS: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
}
#: base -> configuration besides the sizes.
DEBERTAS: dict[str, dict[str, Any]] = {
    "shared": {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "shared c2p": {"share_att_key": True, "pos_att_type": ["c2p"], "type_vocab_size": 2},
    "apart": {"share_att_key": False, "pos_att_type": ["p2c", "c2p"], "num_hidden_layers": 1},
}
PROJECTIONS = ("query_proj", "key_proj", "pos_key_proj", "pos_query_proj")


@dataclass(frozen=True)
class Base:
    """A tiny model as a folder."""

    folder: Path

    @property
    def onnx(self) -> Path:
        """Its graph, made when first asked for."""
        path = self.folder / "base.onnx"
        if not path.exists():
            ir.save(load_transformers(self.folder, headless=True).model, path)
        return path


def _model(name: str) -> Any:
    torch.manual_seed(3)
    model = DebertaV2Model(DebertaV2Config(**{**_SIZES, **_POSITIONS, **DEBERTAS[name]}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    """Each base is made once."""
    torch.set_num_threads(1)
    bases: dict[str, Base] = {}

    def get(name: str) -> Base:
        if name not in bases:
            bases[name] = Base(tmp_path_factory.mktemp("base"))
            with quiet():
                _model(name).save_pretrained(bases[name].folder)
        return bases[name]

    return get


def _adapter(base: Base, folder: Path, method: str) -> list[Path]:
    shapes = linear_shapes(base.folder, PROJECTIONS)
    if method == "ept":
        return [write_ept(folder / "ept", shapes, seed=1, strength=0.4)]
    if method == "tucka":
        return [write_tucka(folder / "tucka", shapes, seed=2, tasks=TASKS, strength=0.3)]
    return [write_lora(folder / task, shapes, seed=seed, strength=0.5) for seed, task in enumerate(TASKS)]


def _feeds(rows: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens; every row but the first is padded, each to another length."""
    rng = np.random.default_rng(100 * rows + length)
    lengths = np.maximum(1, length - 2 * np.arange(rows))
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(3, 60, (rows, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _session(model: Path, *, kernels: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    library = kernel_library()
    if kernels and library is not None:
        options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, feeds: dict[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    known = {**feeds, "task_id": ids}
    return dict(zip(names, session.run(names, {i.name: known[i.name] for i in session.get_inputs()}), strict=True))


def _close(got: np.ndarray, want: np.ndarray, mask: np.ndarray) -> None:
    kept = mask.astype(bool)
    assert got.shape == want.shape
    assert np.abs(got[kept] - want[kept]).max() <= TOLERANCE * max(1.0, np.abs(want[kept]).max())


def _ids(rows: int, *, infer: bool = False) -> np.ndarray:
    """Every task, the one that switches the adapter off, and where asked for rows to infer."""
    return (np.arange(rows) * 3 + 2 + rows) % 5 - 1 if infer else (np.arange(rows) * 3 + 2) % 4


CASES = {
    "ept conditioned": ("ept", ExportOptions(mode="conditioned", top_k=2, tasks=TASKS)),
    "ept dynamic": ("ept", ExportOptions(mode="dynamic", top_k=2, tasks=TASKS)),
    "lora conditioned": ("lora", ExportOptions(mode="conditioned", tasks=TASKS)),
    "tucka conditioned": ("tucka", ExportOptions(mode="conditioned", routes=ROUTES)),
    "tucka row": ("tucka", ExportOptions(mode="dynamic", routing="row")),
    "tucka batch": ("tucka", ExportOptions(mode="dynamic")),
}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(("shared", case) for case in CASES),
        *(("shared c2p", case) for case in CASES if case.startswith("tucka")),
        *(("apart", case) for case in ("ept conditioned", "lora conditioned", "tucka row", "tucka conditioned")),
    ],
)
def test_rows_are_those_of_the_reference(base_of: Callable[[str], Base], tmp_path: Path, name: str, case: str) -> None:
    base, (method, options) = base_of(name), CASES[case]
    paths = _adapter(base, tmp_path, method)
    options = ExportOptions(**{**options.__dict__, "base_onnx": base.onnx})
    bundle = export_bundle(base.folder, paths, tmp_path / "bundle", options)
    reference = trained_model(base.folder, paths, top_k=options.top_k, tasks=options.tasks)
    live, infers = case in ("tucka row", "tucka batch"), case == "ept dynamic"
    for (rows, length), kernels in product(SHAPES, (False, True)):
        session = _session(bundle.model, kernels=kernels)
        feeds = _feeds(rows, length)
        ids = np.zeros(rows, np.int64) if live else _ids(rows, infer=infers)
        frozen: Any = None
        if case == "tucka conditioned":  # the shared query_proj is called on the positions too: its own route of them
            frozen = [[ROUTES[TASKS[min(task, 2)]] for task in ids], *([None] if name != "apart" else [])]
        want = by_task(reference, feeds, ids, frozen=frozen, routing=options.routing)
        got = _run(session, feeds, ids)
        _close(got["last_hidden_state"], want.outputs["last_hidden_state"], feeds["attention_mask"])
        if infers:
            assert got["task_id_used"].tolist() == want.task.tolist()


@pytest.mark.parametrize("name", ["shared", "shared c2p"])
@pytest.mark.parametrize("mode", ["batch", "row", "conditioned", "static"])
def test_a_router_that_routes_twice_passes_validation(
    base_of: Callable[[str], Base], tmp_path: Path, name: str, mode: str
) -> None:
    base = base_of(name)
    options = {
        "batch": ExportOptions(mode="dynamic", base_onnx=base.onnx),
        "row": ExportOptions(mode="dynamic", routing="row", base_onnx=base.onnx),
        "conditioned": ExportOptions(mode="conditioned", routes=ROUTES, base_onnx=base.onnx),
        "static": ExportOptions(mode="static", task="b", routes=ROUTES, base_onnx=base.onnx),
    }[mode]
    bundle = export_bundle(base.folder, _adapter(base, tmp_path, "tucka"), tmp_path / "bundle", options)
    report = validate_bundle(bundle.path, ValidateOptions(providers=["cpu"]))
    assert report.passed, report.reason


def test_the_route_of_the_positions_is_in_the_manifest(base_of: Callable[[str], Base], tmp_path: Path) -> None:
    """It is a constant of base and adapter, as PEFT computes it, whatever the text is and the tasks' routes are."""
    base = base_of("shared")
    paths = _adapter(base, tmp_path, "tucka")
    options = ExportOptions(mode="conditioned", routes=ROUTES, base_onnx=base.onnx)
    route = export_bundle(base.folder, paths, tmp_path / "bundle", options).manifest.route
    reference = trained_model(base.folder, paths)
    reference.run(_feeds(2, 6), [0, 0])
    last = reference.hosts[0].state.taken[-1]
    assert route is not None
    assert [each["call"] for each in route["constant"]] == [1]
    assert route["constant"][0]["group"] == int(last.group)
    np.testing.assert_allclose(route["constant"][0]["weights"], last.weights[0].numpy(), rtol=0, atol=1e-6)
    assert route["tasks"]["b"] == [{"group": 2, "weights": [0.1, 0.7]}]


@pytest.mark.parametrize("given", [2, 0])
def test_a_route_too_many_is_refused(base_of: Callable[[str], Base], tmp_path: Path, given: int) -> None:
    base = base_of("shared")
    options = ExportOptions(mode="conditioned", routes={None: (ROUTES["a"],) * given}, base_onnx=base.onnx)
    with pytest.raises(UsageError, match=f"'a' needs one route, and has {given}$"):
        export_bundle(base.folder, _adapter(base, tmp_path, "tucka"), tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


@contextmanager
def _alone(base: Base, adapter: Adapter, task: int) -> Iterator[Any]:
    """transformers' own model, its attention as it is, with one task's update in the weights."""
    with quiet():
        model = DebertaV2Model.from_pretrained(base.folder).double().eval()
    if task < len(adapter.tasks):
        for module in adapter.module_names:
            weight = model.get_submodule(module).weight
            folded = method_of(adapter.method).fold(adapter, module, weight.detach().numpy(), task)
            weight.data = torch.from_numpy(np.array(folded))
    with torch.no_grad():
        yield model


@pytest.mark.parametrize("name", DEBERTAS)
def test_the_reference_is_every_row_alone_in_transformers(
    base_of: Callable[[str], Base], tmp_path: Path, name: str
) -> None:
    base = base_of(name)
    for method in ("ept", "lora"):
        paths, top_k = _adapter(base, tmp_path, method), 2 if method == "ept" else None
        adapter = read_adapter(paths, top_k=top_k, tasks=TASKS)
        feeds, ids = _feeds(4, 9), _ids(4)
        reference = trained_model(base.folder, paths, top_k=top_k, tasks=TASKS)
        got = by_task(reference, feeds, ids).outputs["last_hidden_state"]
        alike = []
        for row, task in enumerate(ids):
            tensors = {key: torch.from_numpy(array[row : row + 1]) for key, array in feeds.items()}
            with _alone(base, adapter, task) as model:
                want = model(**tensors).last_hidden_state[0].numpy()
            kept = feeds["attention_mask"][row].astype(bool)
            np.testing.assert_allclose(got[row][kept], want[kept], rtol=0, atol=1e-9)
            with _alone(base, adapter, 3) as model:
                alike.append(np.allclose(model(**tensors).last_hidden_state[0].numpy()[kept], want[kept], atol=1e-2))
        assert alike == (ids == 3).tolist()


@pytest.mark.parametrize("name", DEBERTAS)
def test_the_attention_computes_what_transformers_does(base_of: Callable[[str], Base], name: str) -> None:
    with quiet():
        model = DebertaV2Model.from_pretrained(base_of(name).folder).eval()
    tensors = {key: torch.from_numpy(array) for key, array in _feeds(3, 11).items()}
    with torch.no_grad():
        want = model(**tensors).last_hidden_state
        allow_positions_per_row(model)
        got = model(**tensors).last_hidden_state
    assert torch.allclose(got, want, rtol=0, atol=4e-6)
    assert {type(layer.attention.self).__name__ for layer in model.encoder.layer} == {"_PerRowAttention"}


def test_an_attention_that_is_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eptx.exporter.bases.passes.deberta._is_known", lambda: False)
    model = DebertaV2Model(DebertaV2Config(**_SIZES, relative_attention=True))
    allow_positions_per_row(model)
    assert type(model.encoder.layer[0].attention.self).__name__ == "DisentangledSelfAttention"


def test_a_graph_that_repeats_the_positions_is_refused(base_of: Callable[[str], Base], tmp_path: Path) -> None:
    """As other exporters' graphs do; what does not differ per row still goes in."""
    base = base_of("shared")
    graph = ir.load(base.onnx)
    modules = [name for name in linear_shapes(base.folder, PROJECTIONS) if name.endswith("key_proj")]
    for site in locate(BaseGraph(graph, "deberta-v2", folder=base.folder, prefix="deberta"), modules).values():
        y = site.also[0].y
        uses = list(y.uses())
        three = ir.Value(name=f"{site.module}.times", const_value=ir.tensor(np.array([1, 1, 1])))
        graph.graph.register_initializer(three)
        tile = ir.node("Tile", [y, three])
        tile.outputs[0].shape, tile.outputs[0].type = y.shape, y.type
        for user, index in uses:
            user.replace_input_with(index, tile.outputs[0])
        graph.graph.append(tile)
    graph.graph.sort()
    ir.save(graph, tmp_path / "base.onnx")
    paths = _adapter(base, tmp_path, "lora")
    options = ExportOptions(mode="conditioned", tasks=TASKS, base_onnx=tmp_path / "base.onnx")
    with pytest.raises(NotSupportedError, match=r"use --mode static, .* give DeBERTa-v2 as its") as caught:
        export_bundle(base.folder, paths, tmp_path / "bundle", options)
    assert "\n" not in str(caught.value)
    options = ExportOptions(mode="static", task="b", tasks=TASKS, base_onnx=tmp_path / "base.onnx")
    assert export_bundle(base.folder, paths, tmp_path / "bundle", options)


def test_training_takes_rows_of_several_tasks() -> None:
    config = EptConfig(tasks=list(TASKS), target_modules=["query_proj", "key_proj"], kernel_sizes=[2, 3], r=2)
    with quiet():
        tuned: Any = get_peft_model(_model("shared"), config).train()
    feeds = {key: torch.from_numpy(array) for key, array in _feeds(4, 9).items()}
    loss = tuned(**feeds, task=torch.tensor([0, 2, 3, -1])).last_hidden_state.square().mean()
    (loss + tuned.base_model.auxiliary_loss).backward()
    gradients = [p.grad for p in tuned.parameters() if p.requires_grad]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert len(tuned.base_model.state.losses) == 4  # of the text alone, for two modules of two layers

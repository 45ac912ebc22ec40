"""MixLoRA with routes that data has frozen: each feed-forward runs the experts that a task's tokens weigh most."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers

import eptx
from eptx.bundle import Bundle, read_bundle
from eptx.calibration import Search
from eptx.errors import EptxError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.quiet import quiet
from eptx.exporter.trained import load_trained, read_files
from eptx.runtime.measure import Source
from tests.exporter.methods.family import SMALL, Small
from tests.exporter.methods.mixlora_layers import EXPERTS, TOP, Chosen, change_bert, change_t5, trained, write
from tests.exporter.methods.routed import outputs
from tests.matrix.cell import CALLS
from tests.matrix.row import Arrays

TASKS, BASE = ("a", "b"), "base"
ROWS = ("b", BASE, "a", "b")
#: What has the route of each feed-forward, in order.
FEED_FORWARDS = {
    "bert": [f"encoder.layer.{i}.intermediate.dense" for i in (0, 1)],
    "llama": [f"model.layers.{i}.mlp.gate_proj" for i in (0, 1)],
    "t5": [
        *(f"decoder.block.{i}.layer.2.DenseReluDense.wi" for i in (0, 1)),
        *(f"encoder.block.{i}.layer.1.DenseReluDense.wi" for i in (0, 1)),
    ],
}
#: One route for each feed-forward.
Fixed = list[np.ndarray]


@dataclass(frozen=True)
class Case:
    """A base, an adapter on it, and the model that was trained.

    Attributes:
        chosen: its feed-forwards, in the order of `FEED_FORWARDS`.
        data: task -> rows for calibration.
    """

    name: str
    base: Path
    adapter: Path
    model: Any
    chosen: list[Chosen]
    data: dict[str, list[dict[str, Any]]]

    @property
    def small(self) -> Small:
        return SMALL[self.name]

    @property
    def key(self) -> str:
        return "last_hidden_state" if self.name == "bert" else "logits"

    def run(self, inputs: Arrays, fixed: Fixed | None) -> np.ndarray:
        """What the trained model gives, with its own routers or with fixed weights."""
        for number, own in enumerate(self.chosen):
            own.fixed = None if fixed is None else fixed[number]
        return outputs(self.model, inputs)[self.key]

    def said(self, inputs: Arrays) -> Fixed:
        """How much each expert counts for a row's tokens, on average."""
        self.run(inputs, None)
        return [own.said.mean(0) for own in self.chosen]

    def options(self, **more: Any) -> ExportOptions:
        return ExportOptions(mode="conditioned", tasks=TASKS, **more)

    def export(self, out: Path) -> Bundle:
        """With routes of the data."""
        lines = [{"task": task, **row} for task, rows in self.data.items() for row in rows]
        return eptx.export(
            self.base, self.adapter, out, self.options(precision=Search(data=[Source(lines)], only="fp32"))
        )

    def plain(self, inputs: Arrays) -> np.ndarray:
        """What the base gives."""
        with quiet():
            base: Any = getattr(transformers, self.small.trained).from_pretrained(self.base).eval()
        return outputs(base, inputs)[self.key]


def _inputs(row: dict[str, Any]) -> Arrays:
    ids = np.array([row["input_ids"]])
    answer = {"decoder_input_ids": np.array([[0, *row["label"][:-1]]])} if "label" in row else {}
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), **answer}


def _rows(name: str, seed: int) -> list[dict[str, Any]]:
    """Each task has words of its own."""
    rng = np.random.default_rng(seed)
    words = range(5 + 25 * seed, 30 + 25 * seed)
    rows = [{"input_ids": rng.choice(words, rng.integers(3, 9)).tolist()} for _ in range(6)]
    return [row | {"label": rng.choice(words, 4).tolist()} for row in rows] if name == "t5" else rows


@pytest.fixture(scope="module", params=SMALL)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, folder = request.param, tmp_path_factory.mktemp("mixlora")
    base = SMALL[name].write(folder / "base")
    if name == "llama":
        model = trained(base, folder / "saved")
        eptx.convert(folder / "saved", folder / "adapter")
    else:
        torch.manual_seed(3)
        with quiet():
            model = getattr(transformers, SMALL[name].trained).from_pretrained(base).eval()
        change, first = (change_bert, "first") if name == "bert" else (change_t5, "wi")
        write(model, change, folder / "adapter", (first,))
    found = {path: module for path, module in model.named_modules() if isinstance(module, Chosen)}
    chosen = [next(own for path, own in found.items() if wanted.startswith(path)) for wanted in FEED_FORWARDS[name]]
    data = {task: _rows(name, seed) for seed, task in enumerate(TASKS)}
    return Case(name, base, folder / "adapter", model, chosen, data)


class Measured(NamedTuple):
    """The bundle that data made, and the routes that it must have."""

    bundle: Bundle
    fixed: dict[str, Fixed]


@pytest.fixture(scope="module")
def measured(case: Case) -> Measured:
    fixed = {}
    for task, rows in case.data.items():
        fits = [case.said(_inputs(row)) for row in rows[::2]]  # the others measure what that costs
        means = [np.mean(own, axis=0) for own in zip(*fits, strict=True)]
        assert min(np.count_nonzero(mean) for mean in means) > TOP  # something is left out
        kept = [np.where(mean >= np.sort(mean)[-TOP], mean, 0) for mean in means]
        fixed[task] = [own / own.sum() for own in kept]
    assert not np.allclose(fixed["a"], fixed["b"], atol=0.05)
    return Measured(case.export(case.adapter.parent / "out"), fixed)


def test_the_routes_are_the_largest_means(case: Case, measured: Measured) -> None:
    route = measured.bundle.manifest.route or {}
    assert route["modules"] == FEED_FORWARDS[case.name]
    for task, fixed in measured.fixed.items():
        found = [each["weights"] for each in route["tasks"][task]]
        np.testing.assert_allclose(found, fixed, atol=1e-5)
        np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-8)
        both = [[case.run(_inputs(row), own) for own in (None, fixed)] for row in case.data[task][1::2]]
        lost = max(float(np.abs(live - frozen).max()) for live, frozen in both)
        assert route["frozen_error"][task]["max_abs"] == pytest.approx(lost, rel=1e-4)
        assert lost > 1e-3


@pytest.mark.parametrize("kernels", [True, False])
def test_mixed_rows(case: Case, measured: Measured, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr("eptx.runtime.ort.kernels._LIBRARY", "none")
    inputs, served = case.small.reads(len(ROWS)), [task.name for task in measured.bundle.manifest.tasks]
    assert served == [*TASKS, BASE]
    wanted = {task: case.run(inputs, fixed) for task, fixed in measured.fixed.items()} | {BASE: case.plain(inputs)}
    assert min(np.abs(wanted[one] - wanted[other]).max() for one, other in ("ab", ("b", BASE), ("a", BASE))) > 0.05
    found = CALLS[case.small.call](measured.bundle, inputs, list(ROWS), served)[case.key]
    for index, task in enumerate(ROWS):
        kept: Any = inputs["attention_mask"][index] == 1 if case.name != "t5" else slice(None)
        want = wanted[task][index][kept]
        assert np.abs(found[index][kept] - want).max() <= 2e-5 * max(1, np.abs(want).max()), (index, task)


def test_it_validates(measured: Measured) -> None:
    assert eptx.validate(measured.bundle.path).passed


def test_the_routes_of_a_bundle_make_it_again(case: Case, measured: Measured, tmp_path: Path) -> None:
    route = measured.bundle.manifest.route or {}
    told: Any = {t: tuple(Route(r["group"], tuple(r["weights"])) for r in own) for t, own in route["tasks"].items()}
    again = eptx.export(case.base, case.adapter, tmp_path / "again", case.options(routes=told))
    unlike = {"frozen_error"}  # what was measured
    own, other = (read_bundle(bundle.path).manifest.to_json() for bundle in (measured.bundle, again))
    assert own["files"] == other["files"]
    assert {k: v for k, v in own["route"].items() if k not in unlike} == other["route"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and an adapter."""
    folder = tmp_path_factory.mktemp("bert")
    SMALL["bert"].write(folder / "base")
    with quiet():
        model: Any = transformers.BertModel.from_pretrained(folder / "base").eval()
    write(model, change_bert, folder / "adapter", ("first",))
    return folder


def test_rows_of_the_base_take_a_forward_of_their_own(bert: Path) -> None:
    """The trained model's routers know no rows."""
    model = load_trained(bert / "base", read_files([bert / "adapter"]), ("a", "b"))
    inputs = SMALL["bert"].reads(2)
    model.run(inputs, [0, 1])
    with pytest.raises(EptxError, match="rows of different tasks take a forward each"):
        model.run(inputs, [0, 2])


def _route(*weights: float) -> Route:
    return Route(0, weights)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((0.5, 0.3, 0.2, 0.0), "3 weights are not 0, and all sum to 1; the adapter runs 2 experts: give at most 2"),
        ((0.5, 0.3, 0.0, 0.0), "2 weights are not 0, and all sum to 0.8"),
        ((1.5, -0.5, 0.0, 0.0), "2 weights are not 0, and all sum to 1"),
        ((float("nan"), 1.0, 0.0, 0.0), "2 weights are not 0, and all sum to nan"),
        ((0.5, 0.5), "2 weights given; the adapter has 4 experts"),
    ],
)
@pytest.mark.parametrize("measures", [True, False])
def test_routes_that_are_no_choice(
    bert: Path, weights: tuple[float, ...], said: str, measures: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eptx.calibration.routes.study.study_task", None)  # they are refused before
    rows = [Source([{"input_ids": [7, 8, 9]}])]
    data: Any = {"precision": Search(data=rows, only="fp32")} if measures else {}
    options = ExportOptions(mode="conditioned", routes={None: (_route(0, 0, 1, 0), _route(*weights))}, **data)
    with pytest.raises(EptxError, match=said) as refused:
        eptx.export(bert / "base", bert / "adapter", tmp_path / "out", options)
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"mode": "conditioned"}, 2, "MixLoRA weighs its experts by the data; fixed weights for task 'task0' need"),
        ({"mode": "conditioned", "routes": {None: _route(0, 0, 1, 0)}}, 2, "1 routes; the adapter has 2 feed-forwards"),
        ({"mode": "static"}, 5, "MixLoRA has no mode static: use --mode dynamic or --mode conditioned"),
    ],
)
def test_what_an_export_lacks(bert: Path, options: dict[str, Any], code: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(EptxError, match=said) as refused:
        eptx.export(bert / "base", bert / "adapter", tmp_path / "out", ExportOptions(**options))
    assert refused.value.exit_code == code and "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_one_expert_alone_is_the_base_with_its_updates(bert: Path, tmp_path: Path) -> None:
    """A route may have fewer experts than a token chooses: the others count for nothing."""
    config = json.loads((bert / "adapter" / "adapter_config.json").read_text())
    assert (config["top_k"], EXPERTS) == (2, 4)
    with quiet():
        torch.manual_seed(3)
        model: Any = transformers.BertModel.from_pretrained(bert / "base").eval()
    write(model, change_bert, tmp_path / "adapter", ("first",))
    for own in (module for module in model.modules() if isinstance(module, Chosen)):
        own.fixed = np.array([0.0, 0.0, 0.0, 1.0])
    route = (_route(0, 0, 0, 1), _route(0, 0, 0, 1))
    options = ExportOptions(mode="conditioned", routes={None: route})
    bundle = eptx.export(bert / "base", tmp_path / "adapter", tmp_path / "out", options)
    inputs = SMALL["bert"].reads(1)
    wanted = outputs(model, inputs)["last_hidden_state"]
    found = eptx.Session(bundle.path).run(inputs, "task0")["last_hidden_state"]
    assert np.abs(found - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())
    assert eptx.validate(bundle.path).passed

"""Frozen TuckA: the chosen route is the one that loses least on rows that were held out, recomputed without eptx."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from eptx.bundle import read_bundle
from eptx.calibration import RouteStudy, export_bundle, study_routes
from eptx.calibration.routes.study import check_freezes
from eptx.cli import cli
from eptx.errors import DataError, UsageError
from eptx.exporter import ExportOptions, Route, read_adapter
from eptx.exporter.adapters.adapter import Adapter
from eptx.runtime import Session
from eptx.runtime.measure import Row, Source, read_data
from tests.calibration.plain_tucka import PlainTucka
from tests.exporter.bases.conftest import build
from tests.exporter.validation.adapters import add_heads, linear_shapes, write_tucka
from tests.support.encoder_decoders import TARGETS, write_encoder_decoder

GOLDEN = Path(__file__).parents[1] / "golden"
BERT, LLAMA = GOLDEN / "tucka_bert48", GOLDEN / "tucka_llama64"
HEADS = {"x": 3, "y": 1}
STATIC = ExportOptions(mode="static")


@dataclass(frozen=True)
class Case:
    """A base, an adapter, rows, and the same model without eptx."""

    base: Path
    adapter: Path
    rows: dict[str, list[Row]]
    plain: PlainTucka

    def study(self, **options: Any) -> RouteStudy:
        return study_routes(self.base, self.read, ExportOptions(mode="conditioned", **options), self.rows)

    @property
    def read(self) -> Adapter:
        return read_adapter([self.adapter])


def rows_of(task: str, count: int, labels: Any, seed: int = 0, most: int = 150) -> list[Row]:
    rng = np.random.default_rng(seed)
    ids = [tuple(rng.integers(5, most, rng.integers(2, 12)).tolist()) for _ in range(count)]
    return [Row(task, input_ids=row, label=labels(rng)) for row in ids]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two tasks with heads, one of labels and one of a value; the group of most rows does not lose least."""
    base = BERT / "base"
    shapes = linear_shapes(base, ("query", "value", "intermediate.dense"))
    folder = tmp_path_factory.mktemp("heads") / "adapter"
    adapter = add_heads(write_tucka(folder, shapes, seed=13, tasks=list(HEADS), strength=0.5), HEADS, 48)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_labels": {"x": ["a", "b", "c"]}}))
    rows = {
        "x": rows_of("x", 25, lambda rng: "abc"[rng.integers(3)]),
        "y": rows_of("y", 16, lambda rng: float(rng.normal()), seed=1),
    }
    return Case(base, adapter, rows, PlainTucka(AutoModelForSequenceClassification.from_pretrained(base), adapter))


@pytest.fixture(scope="module")
def golden() -> Case:
    """The released code's adapter on a base with its own classifier."""
    model = AutoModelForSequenceClassification.from_pretrained(BERT / "base")
    rows = {"task0": rows_of("task0", 24, lambda rng: int(rng.integers(3)))}
    return Case(BERT / "base", BERT / "adapter", rows, PlainTucka(model, BERT / "adapter"))


@pytest.fixture(scope="module")
def llama() -> Case:
    """The released code's adapter on a language model; the answer to a row is three tokens."""
    model = AutoModelForCausalLM.from_pretrained(LLAMA / "base")
    rows = {"task0": rows_of("task0", 15, lambda rng: tuple(rng.integers(5, 150, 3).tolist()))}
    return Case(LLAMA / "base", LLAMA / "adapter", rows, PlainTucka(model, LLAMA / "adapter"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An encoder-decoder, whose encoder routes."""
    folder = tmp_path_factory.mktemp("t5")
    base = write_encoder_decoder("t5", folder / "base")
    adapter = write_tucka(folder / "adapter", linear_shapes(base, TARGETS), seed=4, strength=0.5)
    rows = {"task0": rows_of("task0", 13, lambda rng: tuple(rng.integers(5, 150, 3).tolist()))}
    return Case(base, adapter, rows, PlainTucka(AutoModelForSeq2SeqLM.from_pretrained(base), adapter))


def distance(live: Sequence[np.ndarray], frozen: Sequence[np.ndarray], rows: Sequence[Row]) -> float:
    """0 to 100: by how much labels' probabilities, a value in its deviations, or an answer's likelihood has moved."""
    pairs = list(zip(live, frozen, strict=True))
    if isinstance(rows[0].label, tuple):
        return 100 * float(np.mean([np.abs(a - b).mean() for a, b in pairs]))
    if len(live[0]) == 1:
        one, two = np.concatenate(live), np.concatenate(frozen)
        return 100 * float(np.abs(one - two).mean() / one.std())
    likely = [[np.exp(side) / np.exp(side).sum() for side in pair] for pair in pairs]
    return 100 * float(np.mean([np.abs(a - b).sum() / 2 for a, b in likely]))


@pytest.mark.parametrize("name", ["heads", "golden", "llama", "t5"])
def test_the_chosen_route_loses_least(request: pytest.FixtureRequest, name: str) -> None:
    case: Case = request.getfixturevalue(name)
    study = case.study()
    for task, rows in case.rows.items():
        found = study.tasks[task]
        (call,) = found.calls
        (route_of_it,) = found.chosen
        live, affinity, groups = [], [], []
        for row in rows:
            live.append(case.plain.run(row))
            affinity.append(case.plain.affinity)
            groups.append(case.plain.group)
        k = len(affinity[0])
        assert len(set(groups)) > 1  # a study of something
        np.testing.assert_allclose(call.share, np.bincount(groups, minlength=k) / len(rows))
        np.testing.assert_allclose(call.mean, np.mean(affinity, axis=0), atol=1e-7)
        np.testing.assert_allclose(call.deviation, np.std(affinity, axis=0), atol=1e-7)
        candidates = [(group, np.mean(affinity[::2], axis=0)[group]) for group in range(k)]
        held_out = rows[1::2]
        losses = [
            distance(live[1::2], [case.plain.run(row, [route]) for row in held_out], held_out) for route in candidates
        ]
        np.testing.assert_allclose(call.divergences, losses, rtol=1e-5, atol=1e-7)
        best = int(np.argmin(losses))
        assert min(losses) > 1e-3
        assert route_of_it.group == best
        np.testing.assert_allclose(route_of_it.weights, candidates[best][1], atol=1e-7)
        assert found.error["divergence"] == pytest.approx(losses[best], rel=1e-5)
        assert (found.rows, found.held_out, found.error["rows"]) == (len(rows), len(held_out), len(held_out))
        assert name != "heads" or best != call.share.argmax()


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A base whose two layers are one, so that the router is called twice on the data."""
    folder = tmp_path_factory.mktemp("albert")
    build("albert").save_pretrained(folder / "base")
    adapter = write_tucka(folder / "adapter", linear_shapes(folder / "base", ("query", "ffn")), seed=11, strength=0.5)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    rows = {"task0": rows_of("task0", 20, lambda rng: 0, most=80)}
    return Case(folder / "base", adapter, rows, PlainTucka(model, adapter))


@pytest.fixture(scope="module")
def deberta() -> Case:
    """The released code's adapter on a base that calls the router on its positions too."""
    folder = GOLDEN / "tucka_deberta64"
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    rows = {"task0": rows_of("task0", 14, lambda rng: 0, most=100)}
    return Case(folder / "base", folder / "adapter", rows, PlainTucka(model, folder / "adapter"))


@pytest.mark.parametrize("name", ["albert", "deberta"])
def test_each_call_takes_the_group_that_loses_least(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """One call after the other; what is constant is no call to choose for, and keeps its own route."""
    case: Case = request.getfixturevalue(name)
    study, rows = case.study(), case.rows["task0"]
    found, free = study.tasks["task0"], 2 if name == "albert" else 1
    live, affinities = [], []
    for row in rows:
        live.append(case.plain.run(row))
        affinities.append(np.stack(case.plain.affinities[:free]))
        assert len(case.plain.affinities) == 2
    fitted, held_out = np.stack(affinities[::2]), rows[1::2]
    mean, k = fitted.mean(0), fitted.shape[2]
    chosen = [int(np.bincount(fitted[:, call].max(2).argmax(1), minlength=k).argmax()) for call in range(free)]
    assert len(found.calls) == len(found.chosen) == free
    for call, own in enumerate(found.calls):
        losses = []
        for group in range(k):
            frozen: list[Any] = [(g, mean[at][g]) for at, g in enumerate([*chosen[:call], group, *chosen[call + 1 :]])]
            answers = [case.plain.run(row, [*frozen, *[None] * (2 - free)]) for row in held_out]
            losses.append(distance(live[1::2], answers, held_out))
        np.testing.assert_allclose(own.divergences, losses, rtol=1e-4, atol=1e-6)
        chosen[call] = int(np.argmin(losses))
        groups = np.stack(affinities)[:, call].max(2).argmax(1)
        np.testing.assert_allclose(own.share, np.bincount(groups, minlength=k) / len(rows))
    assert [route.group for route in found.chosen] == chosen
    options = study.options(ExportOptions(mode="static"))
    bundle = export_bundle(case.base, [case.adapter], tmp_path / "bundle", options)
    row = held_out[0]
    feeds = {"input_ids": np.array([row.input_ids]), "attention_mask": np.ones((1, len(row.input_ids or ())), np.int64)}
    told: list[Any] = [*((route.group, route.weights) for route in found.chosen), *[None] * (2 - free)]
    np.testing.assert_allclose(Session(bundle).run(feeds)["logits"][0], case.plain.run(row, told), atol=2e-5)


def test_routes_that_are_given_are_as_many_as_the_calls(albert: Case) -> None:
    with pytest.raises(UsageError, match="--route gives 1 routes; the router routes 2 times by the data"):
        albert.study(routes={None: Route(0, (0.5, 0.5))})


def test_metrics_of_both_routes(heads: Case) -> None:
    study = heads.study()
    for task, rows in heads.rows.items():
        metric, chosen = study.tasks[task].to_json()["metric"], study.tasks[task].chosen[0]
        held_out = rows[1::2]
        for key, route in (("live", ()), ("frozen", [(chosen.group, chosen.weights)])):
            found = [heads.plain.run(row, route) for row in held_out]
            if task == "x":
                labels = ["abc".index(str(row.label)) for row in held_out]
                wanted = np.mean([int(f.argmax()) == label for f, label in zip(found, labels, strict=True)])
            else:
                wanted = np.corrcoef(np.concatenate(found), [float(str(row.label)) for row in held_out])[0, 1]
            assert metric[key] == pytest.approx(wanted, abs=1e-6)
        assert metric["name"] == {"x": "accuracy", "y": "pearson"}[task]


def test_rows_without_labels_have_no_metric_and_the_same_loss(golden: Case) -> None:
    rows = {"task0": [Row("task0", input_ids=row.input_ids) for row in golden.rows["task0"]]}
    found = study_routes(golden.base, golden.read, STATIC, rows).tasks["task0"]
    assert found.metric is None
    assert found.calls[0].divergences == golden.study().tasks["task0"].calls[0].divergences


def test_a_single_row_is_fitted_and_judged(golden: Case) -> None:
    row = golden.rows["task0"][0]
    found = study_routes(golden.base, golden.read, STATIC, {"task0": [row]}).tasks["task0"]
    golden.plain.run(row)
    assert (found.rows, found.held_out, found.chosen[0].group) == (1, 1, golden.plain.group)
    assert found.error["divergence"] < 1e-6  # its own route, rounded


def test_a_route_that_is_given_is_kept_and_judged(heads: Case) -> None:
    given, other = Route(1, (0.1, 0.9)), heads.study()
    options = ExportOptions(mode="conditioned", routes={"x": given})
    study = study_routes(heads.base, heads.read, options, heads.rows)
    found, wanted = study.tasks["x"], heads.rows["x"][1::2]
    live = [heads.plain.run(row) for row in wanted]
    frozen = [heads.plain.run(row, [(1, given.weights)]) for row in wanted]
    assert found.given
    assert found.calls[0].divergences == other.tasks["x"].calls[0].divergences
    assert found.error["divergence"] == pytest.approx(distance(live, frozen, wanted), rel=1e-5)
    assert study.options(options).routes == {"x": given, "y": other.tasks["y"].chosen}


def test_an_export_freezes_what_was_measured(golden: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"input_ids": row.input_ids, "label": row.label}) for row in golden.rows["task0"]]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    settings = ["--mode", "static", "--calibration-data", str(tmp_path / "d.jsonl")]
    arguments = ["export", "-q", golden.base, golden.adapter, "-o", tmp_path / "b", *settings]
    cli.main(list(map(str, arguments)), standalone_mode=False)
    found, route = golden.study().tasks["task0"], read_bundle(tmp_path / "b").manifest.route or {}
    assert route["tasks"]["task0"] == [{"group": r.group, "weights": list(r.weights)} for r in found.chosen]
    assert route["frozen_error"]["task0"] == found.error
    assert f"divergence {found.error['divergence']:.3g} of 100" in capsys.readouterr().out


def test_what_is_missing(heads: Case, golden: Case) -> None:
    with pytest.raises(DataError, match="has no rows of y; every task needs some"):
        read_data([Source([{"input_ids": [7], "task": "x"}])], ["x", "y"])
    with pytest.raises(DataError, match="a label of x is 'd', which is not one of the task's; it has a, b, c"):
        study_routes(heads.base, heads.read, STATIC, {"x": [Row("x", input_ids=(7,), label="d")]})
    with pytest.raises(DataError, match="a label of task0 is 3, out of range; they are 0 to 2"):
        study_routes(golden.base, golden.read, STATIC, {"task0": [Row("task0", input_ids=(7,), label=3)]})
    with pytest.raises(UsageError, match="give its transformers folder"):
        check_freezes(None, golden.read, STATIC)
    with pytest.raises(UsageError, match="measures the routes of HydraLoRA, Lily, MixLoRA and TuckA adapters"):
        check_freezes(golden.base, golden.read, ExportOptions(mode="dynamic"))

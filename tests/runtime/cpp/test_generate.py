"""Generation by libeptx: the tokens that the graph gives when its cache is an array that grows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eptx.bundle import Bundle, read_bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from tests.runtime.cpp.library import Answer, Session, load
from tests.support.decoders import Steps, write_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden"
VOCABULARY, LENGTH = 180, 64
OPTIONS: dict[str, dict[str, Any]] = {
    "static": {"mode": "static", "top_k": 3, "task": "task3"},
    "conditioned": {"mode": "conditioned", "top_k": 3},
    "fp16": {"mode": "conditioned", "top_k": 3, "precision": "fp16"},
    "int4": {"mode": "conditioned", "top_k": 3, "precision": "int4"},
    "dynamic": {"mode": "dynamic", "top_k": 3},
    "batch": {"mode": "dynamic", "routing": "batch"},
    "row": {"mode": "dynamic", "routing": "row"},
    "prompt": {"mode": "dynamic", "routing": "prompt"},
}
TASKS = ["task0", "task5", "base", "task1", "task1", "task7", "task6", "task2"]
_rng = np.random.default_rng(7)
PROMPTS = [_rng.integers(3, VOCABULARY, length).tolist() for length in (5, 1, 17, 9, 2, 30, 12, 3)]
BundleOf = Callable[[str], Bundle]


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> BundleOf:
    """Bundles by their name in `OPTIONS`, made on demand."""
    load()
    folder, made = tmp_path_factory.mktemp("decoders"), dict[str, Bundle]()

    def base_of(case: str) -> Path:
        base = folder / case
        if not base.exists():
            shutil.copytree(GOLDEN / case / "base", base)
            write_tokenizer(base, VOCABULARY)
        return base

    def make(name: str) -> Bundle:
        if name not in made:
            case = "tucka_llama64" if "routing" in OPTIONS[name] else "ept_llama64"
            options = ExportOptions(**OPTIONS[name])
            made[name] = export_bundle(base_of(case), [GOLDEN / case / "adapter"], folder / name, options)
        return made[name]

    return make


@pytest.fixture
def conditioned(bundle_of: BundleOf) -> Session:
    return Session(bundle_of("conditioned").path)


def choices(bundle: Bundle, tasks: Sequence[str | None], rows: int) -> dict[str, np.ndarray]:
    """The graph's inputs besides tokens: each row's task (-1: inferred), and no route yet."""
    inputs = {spec.name: spec for spec in bundle.manifest.inputs}
    ids: dict[str | None, int] = {task.name: task.id for task in bundle.manifest.tasks} | {"auto": -1}
    given = {}
    if "task_id" in inputs:
        given["task_id"] = np.array([ids[task] for task in tasks])
    if "route_group" in inputs:
        experts = int(inputs["route_weights"].shape[1])
        given |= {"route_group": np.full(rows, -1), "route_weights": np.zeros((rows, experts), np.float32)}
    return given


def greedy(bundle: Bundle, prompts: Sequence[Sequence[int]], tasks: Sequence[str], count: int) -> list[list[int]]:
    """The most likely tokens, by plain calls of the graph with a cache that grows."""
    steps, given = Steps(bundle), choices(bundle, tasks, len(prompts))
    outputs = steps.prefill(prompts, **given)
    given = {name: outputs.get(f"{name}_used", array) for name, array in given.items()}
    logits = np.stack([row[len(prompt) - 1] for row, prompt in zip(outputs["logits"], prompts, strict=True)])
    made = [logits.argmax(-1)]
    while len(made) < count:
        made.append(steps.decode(made[-1].tolist(), **given)["logits"][:, 0].argmax(-1))
    return [ended(row) for row in np.stack(made, 1).tolist()]


def ended(row: list[int], eos: int = 2) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row


@pytest.mark.parametrize("name", OPTIONS)
def test_the_tokens_of_the_graph(bundle_of: BundleOf, name: str) -> None:
    bundle = bundle_of(name)
    tasks = TASKS if bundle.manifest.method == "ept" and name != "static" else None
    answers = Session(bundle.path).generate(PROMPTS, tasks, max_new_tokens=24)
    assert [a.tokens for a in answers] == greedy(bundle, PROMPTS, tasks or [], 24)
    assert [a.task for a in answers] == (tasks or [bundle.manifest.tasks[0].name] * 8)
    assert {a.finish for a in answers} <= {"length", "stop"}
    assert len({tuple(a.tokens) for a in answers}) == 8


@pytest.mark.parametrize("name", ["static", "conditioned", "fp16", "row", "prompt"])
def test_a_batch_is_its_rows(bundle_of: BundleOf, name: str) -> None:
    session = Session(bundle_of(name).path)
    tasks = TASKS if name in ("conditioned", "fp16") else [None] * 8
    alone = [session.generate([p], t, max_new_tokens=30)[0] for p, t in zip(PROMPTS, tasks, strict=True)]
    assert session.generate(PROMPTS, TASKS if tasks[0] else None, max_new_tokens=30) == alone


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_without_a_cache(bundle_of: BundleOf, kernels: str) -> None:
    """Runs the whole row again for every token."""
    bundle = bundle_of("conditioned")
    answers = Session(bundle.path, kernels=kernels).generate(PROMPTS[:3], TASKS[:3], max_new_tokens=12)
    for prompt, task, answer in zip(PROMPTS, TASKS, answers, strict=False):
        row, steps = list(prompt), Steps(bundle, kernels=False)
        for token in answer.tokens:
            logits = steps.prefill([row], **choices(bundle, [task], 1))["logits"][0, -1]
            assert token == logits.argmax()
            row.append(token)


def test_tasks_are_inferred_by_the_prompt(bundle_of: BundleOf) -> None:
    bundle = bundle_of("dynamic")
    tasks = ["auto", "task1", "auto", "auto", "base", "auto", "auto", "auto"]
    used = Steps(bundle).prefill(PROMPTS, **choices(bundle, tasks, 8))["task_id_used"]
    names = {task.id: task.name for task in bundle.manifest.tasks}
    wanted = [names[i] for i in used]
    assert len(set(wanted)) > 2
    session = Session(bundle.path)
    answers = session.generate(PROMPTS, tasks, max_new_tokens=20)
    assert [a.task for a in answers] == wanted
    # the task inferred for the prompt holds for the answer (an expert's choice by module may differ from the task's)
    assert [a.tokens for a in answers] == greedy(bundle, PROMPTS, tasks, 20)


def logits_after(bundle: Bundle, row: list[int], task: str) -> np.ndarray:
    logits: np.ndarray = Steps(bundle).prefill([row], **choices(bundle, [task], 1))["logits"][0, -1]
    return logits.astype(np.float64)


def test_drawn_by_the_probabilities(bundle_of: BundleOf, conditioned: Session) -> None:
    """Many rows of one prompt draw one token each."""
    logits = logits_after(bundle_of("conditioned"), PROMPTS[0], "task0") / 1.5
    order = np.argsort(-logits, kind="stable")
    for limits in ({}, {"top_k": 5}, {"top_p": 0.6}, {"top_k": 20, "top_p": 0.5}):
        kept = int(limits.get("top_k", VOCABULARY))
        p = np.exp(logits - logits.max())
        p[order[kept:]] = 0
        p /= p.sum()
        if "top_p" in limits:
            nucleus = int(np.searchsorted(np.cumsum(p[order]), limits["top_p"])) + 1
            assert 1 < nucleus < kept
            p[order[nucleus:]] = 0
            p /= p.sum()
        answers = conditioned.generate(
            [PROMPTS[0]] * 4000, "task0", max_new_tokens=1, temperature=1.5, seed=5, **limits
        )
        counts = np.bincount([a.tokens[0] for a in answers], minlength=VOCABULARY)
        assert not counts[p == 0].any()
        assert (np.abs(counts - 4000 * p) <= 5 * np.sqrt(4000 * p * (1 - p)) + 1).all()


def test_a_seed_repeats_and_rows_are_independent(conditioned: Session) -> None:
    settings: dict[str, float] = {"max_new_tokens": 16, "temperature": 1.2, "top_k": 40}
    answers = conditioned.generate(PROMPTS, TASKS, seed=11, **settings)
    assert conditioned.generate(PROMPTS, TASKS, seed=11, **settings) == answers
    assert conditioned.generate(PROMPTS, TASKS, seed=12, **settings) != answers
    for row in range(8):
        assert conditioned.generate([PROMPTS[row]], TASKS[row], seed=11 + row, **settings) == [answers[row]]
    twins = conditioned.generate([PROMPTS[0]] * 2, "task0", seed=3, **settings)
    assert twins[0] != twins[1]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-30}])
def test_nothing_to_draw(conditioned: Session, settings: dict[str, float]) -> None:
    wanted = conditioned.generate(PROMPTS, TASKS, max_new_tokens=12)
    assert conditioned.generate(PROMPTS, TASKS, max_new_tokens=12, **({"temperature": 0.8} | settings)) == wanted


def test_told_of_every_token(conditioned: Session) -> None:
    told: list[tuple[int, int]] = []
    answers = conditioned.generate(PROMPTS, TASKS, max_new_tokens=9, on_token=lambda *token: not told.append(token))
    steps = [[(row, a.tokens[step]) for row, a in enumerate(answers) if step < len(a.tokens)] for step in range(9)]
    assert told == [token for step in steps for token in step]


@pytest.mark.parametrize("after", [1, 8, 13])
def test_ended_by_the_caller(conditioned: Session, after: int) -> None:
    whole = conditioned.generate(PROMPTS, TASKS, max_new_tokens=9)
    told: list[int] = []

    def on_token(row: int, token: int) -> bool:
        told.append(row)
        return len(told) < after

    answers = conditioned.generate(PROMPTS, TASKS, max_new_tokens=9, on_token=on_token)
    counts = [len(a.tokens) for a in answers]
    assert (len(told), sum(counts)) == (after, after)
    assert [a.tokens for a in answers] == [a.tokens[:n] for a, n in zip(whole, counts, strict=True)]
    assert {a.finish for a in answers} == {"caller"}


def test_a_token_ends_a_row_and_not_its_neighbours(bundle_of: BundleOf, conditioned: Session, tmp_path: Path) -> None:
    whole = conditioned.generate(PROMPTS, TASKS, max_new_tokens=20)
    end = whole[2].tokens[4]
    wanted = [_cut(a, end) for a in whole]
    assert wanted[2].finish == "stop"
    assert "length" in {a.finish for a in wanted}
    assert conditioned.generate(PROMPTS, TASKS, max_new_tokens=20, stop=[VOCABULARY + 7, end]) == wanted
    changed = Path(shutil.copytree(bundle_of("conditioned").path, tmp_path / "bundle"))
    manifest = json.loads((changed / "eptx.json").read_text())
    manifest["generation"]["eos"] += [end]
    (changed / "eptx.json").write_text(json.dumps(manifest))
    assert Session(changed).generate(PROMPTS, TASKS, max_new_tokens=20) == wanted


def _cut(answer: Answer, end: int) -> Answer:
    if end not in answer.tokens:
        return answer
    return Answer(answer.tokens[: answer.tokens.index(end) + 1], "stop", answer.task)


def test_as_long_as_the_model_reads(bundle_of: BundleOf, conditioned: Session) -> None:
    bundle = bundle_of("conditioned")
    assert bundle.manifest.max_length == LENGTH
    answers = conditioned.generate([PROMPTS[1], PROMPTS[5]], "task5", max_new_tokens=LENGTH - 30)
    assert [a.tokens for a in answers] == greedy(bundle, [PROMPTS[1], PROMPTS[5]], ["task5"] * 2, LENGTH - 30)


def test_many_threads(conditioned: Session) -> None:
    def ask(i: int) -> list[Answer]:
        rows = [(i + row) % 8 for row in range(i % 4 + 1)]
        settings = {"max_new_tokens": 3 + i % 6, "temperature": 0.7 * (i % 2), "seed": i}
        return conditioned.generate([PROMPTS[row] for row in rows], [TASKS[-row] for row in rows], **settings)

    alone = [ask(i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == alone


def test_an_encoder_decoder_is_refused(bundle_of: BundleOf, tmp_path: Path) -> None:
    bundle = bundle_of("static")
    changed = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    shutil.copy(changed / "model.onnx", changed / "encoder.onnx")
    manifest = json.loads((changed / "eptx.json").read_text())
    manifest["generation"] |= {"kind": "encoder-decoder", "start": 1}
    manifest["encoder"] = {"file": "encoder.onnx", "modules": {}} | {k: manifest[k] for k in ("inputs", "outputs")}
    manifest["files"]["encoder.onnx"] = manifest["files"]["model.onnx"]
    (changed / "eptx.json").write_text(json.dumps(manifest))
    read_bundle(changed)
    session = Session(changed)
    for call in (lambda: session.generate(PROMPTS, max_new_tokens=1), lambda: session.run({})):
        with pytest.raises(Exception, match="an encoder-decoder, which libeptx does not run") as e:
            call()
        assert e.value.status == 5  # type: ignore[attr-defined]

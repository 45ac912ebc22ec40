"""Generation by encoder-decoders: the loop against transformers' own, and what is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from eptx.bundle import Bundle
from eptx.calibration import export_bundle
from eptx.errors import BundleError, DataError
from eptx.exporter import ExportOptions, Route
from eptx.exporter.trained import Trained
from eptx.runtime.generation.sampling import Sampler
from eptx.runtime.generation.seq2seq import Seq2SeqGenerator
from eptx.runtime.generation.settings import GenerationSettings
from eptx.runtime.measure import Probe, Row, choose_metrics, drops
from eptx.runtime.measure.speed import generates, generation_speeds
from eptx.runtime.session import Session
from tests.exporter.validation.adapters import linear_shapes, write_ept, write_tucka
from tests.support.encoder_decoders import TARGETS, KeptGraphs, write_encoder_decoder
from tests.support.trained import as_task, by_task, trained_model

PROMPTS = [[5, 17, 40, 9, 22, 71, 8], [33, 8], [61, 7, 100, 12], [90, 4, 4, 16, 120]]
TASKS = [2, 3, 0, 1]
Made = Callable[..., tuple[Bundle, Trained]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Method and options -> a bundle on one small T5, and its reference; the base is traced once."""
    home = tmp_path_factory.mktemp("seq2seq")
    (home / "kept").mkdir()
    base, kept = write_encoder_decoder("t5", home / "base"), KeptGraphs(home / "kept")
    shapes = linear_shapes(base, TARGETS)
    answer = {n: s for n, s in shapes.items() if "decoder" in n and "EncDec" not in n}
    adapters = {
        "ept": write_ept(home / "ept", shapes, seed=1, tasks=3, sizes=(2, 3, 3, 5), strength=0.2),
        "tucka": write_tucka(home / "tucka", shapes, seed=2, strength=0.3),
        "answer": write_tucka(home / "answer", answer, seed=2, strength=0.3),
    }
    bundles: dict[str, Bundle] = {}

    def make(method: str, **options: Any) -> tuple[Bundle, Trained]:
        top_k = 2 if method == "ept" else None
        key = f"{method}{options}"
        if key not in bundles:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("eptx.exporter.steps.load.load_encoder_decoder", kept)
                out = home / f"bundle{len(bundles)}"
                bundles[key] = export_bundle(base, [adapters[method]], out, ExportOptions(top_k=top_k, **options))
        return bundles[key], trained_model(base, [adapters[method]], top_k=top_k, dtype=torch.float32)

    return make


def generate(
    bundle: Bundle, prompts: list[list[int]] = PROMPTS, tasks: list[int] | None = None, **settings: Any
) -> list[list[int]]:
    """Every row's tokens, the one that ended it included."""
    ids = None if tasks is None else np.array(tasks)
    steps = Seq2SeqGenerator(bundle, "cpu", 1).tokens(prompts, ids, GenerationSettings(**settings))
    rows = np.stack([step.tokens for step in steps], axis=1).tolist()
    return [[token for token in row if token >= 0] for row in rows]


def transformers_generate(model: Any, count: int, eos: int) -> list[list[int]]:
    """The same by transformers, with the adapter in the model."""
    ids = np.zeros((len(PROMPTS), max(map(len, PROMPTS))), np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(PROMPTS):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
    answers = model.generate(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=eos,
    )[:, 1:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in answers]


def ending_with(bundle: Bundle, eos: int) -> Bundle:
    generation = bundle.manifest.generation
    assert generation is not None
    return replace(bundle, manifest=replace(bundle.manifest, generation=replace(generation, eos=(eos,))))


def a_token_that_ends_some(answers: list[list[int]]) -> int:
    """One that some row has after its first token, and some row has not."""
    later = Counter(token for row in answers for token in set(row[2:]) - set(row[:2]))
    return next(token for token, rows in later.most_common() if rows < len(answers))


def test_greedy_as_transformers_does(made: Made) -> None:
    bundle, reference = made("ept", mode="conditioned")
    eos = a_token_that_ends_some(generate(bundle, tasks=TASKS, max_new_tokens=20))
    bundle = ending_with(bundle, eos)
    got = generate(bundle, tasks=TASKS, max_new_tokens=20)
    with as_task(reference, TASKS) as model:
        assert got == transformers_generate(model, 20, eos)
    assert len({len(row) for row in got}) > 1 and len({tuple(row) for row in got}) == 4
    assert got == [generate(bundle, [p], [t], max_new_tokens=20)[0] for p, t in zip(PROMPTS, TASKS, strict=True)]


def test_the_loop_ends_with_the_last_row(made: Made) -> None:
    bundle, _ = made("ept", mode="conditioned")
    answers = generate(bundle, tasks=TASKS, max_new_tokens=20)
    bundle = ending_with(bundle, answers[0][3])
    steps = list(Seq2SeqGenerator(bundle, "cpu", 1).tokens(PROMPTS[:1], np.array([2]), GenerationSettings()))
    assert len(steps) == answers[0].index(answers[0][3]) + 1
    assert steps[-1].tokens.dtype == np.int64 and steps[-1].tokens.tolist() == [answers[0][3]]


def test_static(made: Made) -> None:
    bundle, reference = made("ept", mode="static", task="task1")
    with as_task(reference, [1] * 4) as model:
        assert generate(bundle, max_new_tokens=12) == transformers_generate(model, 12, 1)


def test_the_task_that_the_encoder_infers_is_kept(made: Made) -> None:
    """The tokens are those of the named task wherever the modules agree on it; the caller learns it at once."""
    bundle, reference = made("ept", mode="dynamic")
    ids = np.array([-1, 1, -1, 3])
    steps = Seq2SeqGenerator(bundle, "cpu", 1).tokens(PROMPTS, ids, GenerationSettings(max_new_tokens=8))
    first = next(steps).tokens
    text = np.zeros((4, 7), np.int64)
    for row, prompt in enumerate(PROMPTS):
        text[row, : len(prompt)] = prompt
    answer = np.zeros((4, 1), np.int64)
    inputs = {"input_ids": text, "attention_mask": (text > 0).astype(np.int64), "decoder_input_ids": answer}
    want = by_task(reference, inputs, [-1, 1, -1, 3])
    assert want.task is not None and ids.tolist() == want.task.tolist() and -1 not in ids
    for _ in range(7):
        last = want.outputs["logits"][:, -1].argmax(axis=1)
        assert first.tolist() == last.tolist()
        inputs["decoder_input_ids"] = np.concatenate([inputs["decoder_input_ids"], last[:, None]], axis=1)
        want, first = by_task(reference, inputs, [-1, 1, -1, 3]), next(steps).tokens


@pytest.mark.parametrize("routing", ["row", "prompt"])
def test_a_route_for_each_row(made: Made, routing: str) -> None:
    bundle, reference = made("tucka", mode="dynamic", routing=routing)
    got = generate(bundle, max_new_tokens=12)
    assert got == [generate(bundle, [prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    text = np.zeros((4, 7), np.int64)
    for row, prompt in enumerate(PROMPTS):
        text[row, : len(prompt)] = prompt
    inputs = {"input_ids": text, "attention_mask": (text > 0).astype(np.int64), "decoder_input_ids": text[:, :1] * 0}
    live = by_task(reference, inputs, routing="row")
    assert live.group is not None and live.weights is not None and len(set(live.group.tolist())) > 1
    routes = [Route(int(g), tuple(map(float, w))) for g, w in zip(live.group, live.weights, strict=True)]
    with as_task(reference, [0] * 4, route=routes) as model:
        assert got == transformers_generate(model, 12, 1)


def test_a_route_for_the_batch(made: Made) -> None:
    bundle, _ = made("tucka", mode="dynamic")
    assert [len(row) for row in generate(bundle, max_new_tokens=3)] == [3, 3, 3, 3]


def test_the_route_of_the_answers_beginning_is_kept(made: Made) -> None:
    """Where the decoder routes: the first call's route holds, as PyTorch computes with that route forced."""
    bundle, reference = made("answer", mode="dynamic", routing="prompt")
    got = generate(bundle, PROMPTS[:1], max_new_tokens=12)
    text = np.array(PROMPTS[:1])
    inputs = {"input_ids": text, "attention_mask": np.ones_like(text), "decoder_input_ids": np.zeros((1, 1), np.int64)}
    live = by_task(reference, inputs, routing="row")
    assert live.group is not None and live.weights is not None
    route = Route(int(live.group[0]), tuple(map(float, live.weights[0])))
    answer = [0]
    for _ in range(12):
        inputs["decoder_input_ids"] = np.array([answer])
        answer.append(int(by_task(reference, inputs, route=route).outputs["logits"][0, -1].argmax()))
    assert got == [answer[1:]]


def test_drawing(made: Made) -> None:
    """The same seed gives the same again, whatever the other rows; one candidate leaves nothing to draw."""
    bundle, _ = made("ept", mode="conditioned")
    hot = {"temperature": 1.5, "max_new_tokens": 10}
    drawn = generate(bundle, tasks=TASKS, seed=3, **hot)
    assert drawn == generate(bundle, tasks=TASKS, seed=3, **hot)
    assert drawn[:2] == generate(bundle, PROMPTS[:2], TASKS[:2], seed=3, **hot)
    assert drawn != generate(bundle, tasks=TASKS, seed=4, **hot)
    assert generate(bundle, tasks=TASKS, **hot) != generate(bundle, tasks=TASKS, **hot)
    greedy = generate(bundle, tasks=TASKS, max_new_tokens=10)
    assert greedy != drawn
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        assert generate(bundle, tasks=TASKS, seed=3, **hot, **narrow) == greedy


def test_a_probe_asks_for_what_is_generated(made: Made) -> None:
    bundle, _ = made("ept", mode="conditioned")
    right = [tuple(answer) for answer in generate(bundle, tasks=TASKS, max_new_tokens=5)]
    wrong = [right[0], (*right[1][:-1], right[1][-1] + 1), *right[2:]]
    session = Session(bundle, threads=1)
    names = [session.tasks[task] for task in TASKS]
    for labels, share in ((right, 1), (wrong, 0.75)):
        given = zip(names, PROMPTS, labels, strict=True)
        probe = Probe(session, {task: [Row(task, input_ids=tuple(ids), label=label)] for task, ids, label in given})
        answers = probe.run(session)
        found = drops(answers, answers, choose_metrics(answers.kinds, {}))
        assert {drop.metric for drop in found} == {"exact_match"} and all(drop.labelled for drop in found)
        assert sum(drop.reference for drop in found) / 4 == share
    with pytest.raises(DataError, match=r"a row: this bundle has no tokenizer\.json"):
        Probe(session, {names[0]: [Row(names[0], input_ids=(5,), label="a text")]})


def test_equal_prompts_are_drawn_for_apart(made: Made) -> None:
    bundle, _ = made("ept", mode="conditioned")
    a, b = generate(bundle, [PROMPTS[0]] * 2, [1, 1], seed=3, temperature=1.5, max_new_tokens=10)
    assert a != b


def test_several_threads(made: Made) -> None:
    bundle, _ = made("ept", mode="conditioned")
    generator, settings = Seq2SeqGenerator(bundle, "cpu", 1), GenerationSettings(max_new_tokens=15)
    assert generator.kernels.operators or generator.kernels.reason

    def answer(i: int) -> list[list[int]]:
        return [step.tokens.tolist() for step in generator.tokens([PROMPTS[i]], np.array([TASKS[i]]), settings)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(4))) == [answer(i) for i in range(4)]


def test_a_bundle_that_says_something_else(made: Made) -> None:
    bundle, _ = made("ept", mode="conditioned")
    manifest = replace(bundle.manifest, outputs=bundle.manifest.outputs[:-1])
    with pytest.raises(BundleError, match=r"the model's output 'present\.1\.value' is not what eptx.json says"):
        Seq2SeqGenerator(replace(bundle, manifest=manifest), "cpu", 1)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.5}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.3}, [0, 0, 0, 1]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_k": 9, "top_p": 1.0}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
    ],
)
def test_what_is_drawn(settings: dict[str, Any], allowed: list[float]) -> None:
    sampler = Sampler(GenerationSettings(**{"temperature": 1.0, "seed": 0, **settings}), 1)
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32))
    drawn = np.bincount([int(sampler.choose(logits)[0]) for _ in range(4000)], minlength=4) / 4000
    assert np.abs(drawn - allowed).max() < 0.03
    assert not drawn[np.array(allowed) == 0].any()


def test_extremes_of_drawing() -> None:
    logits = np.array([[-1e30, 3.0, 2.0, -np.inf]], np.float32)
    for settings in (
        {"temperature": 1e-308},
        {"temperature": 1e300, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-300},
    ):
        sampler = Sampler(GenerationSettings(seed=0, **settings), 1)
        assert [sampler.choose(logits).tolist() for _ in range(5)] == [[1]] * 5
    assert Sampler(GenerationSettings(), 2).choose(np.array([[1, 2, 2], [3, 0, 3]])).tolist() == [1, 0]


def test_how_likely_tokens_were(made: Made) -> None:
    bundle, reference = made("ept", mode="conditioned")
    names = [bundle.manifest.tasks[task].name for task in TASKS]
    pieces = list(Session(bundle, threads=1).stream(PROMPTS, names, max_new_tokens=3, top_logprobs=2))
    text = np.zeros((4, 7), np.int64)
    for row, prompt in enumerate(PROMPTS):
        text[row, : len(prompt)] = prompt
    answers = [[0, *(piece.token_id for piece in pieces if piece.row == row)] for row in range(4)]
    inputs = {"input_ids": text, "attention_mask": (text > 0).astype(np.int64), "decoder_input_ids": np.array(answers)}
    logits = by_task(reference, inputs, TASKS).outputs["logits"]
    wanted = torch.tensor(np.asarray(logits, np.float64)).log_softmax(-1)
    for row in range(4):
        for step, piece in enumerate(piece for piece in pieces if piece.row == row):
            assert piece.logprobs is not None
            np.testing.assert_allclose(piece.logprobs.token, wanted[row, step, piece.token_id], atol=1e-4)
            np.testing.assert_allclose([v for _, v in piece.logprobs.top], wanted[row, step].topk(2)[0], atol=1e-4)


def test_how_fast_it_answers(made: Made) -> None:
    """A prompt is the encoder's, so only the answer is held to what a decoder reads."""
    bundle, _ = made("ept", mode="conditioned")
    session = Session(bundle, threads=1)
    (speeds,) = generation_speeds([session], 2, 6, 2, "task1")
    assert generates(session) and all(value and value > 0 for value in speeds.values())

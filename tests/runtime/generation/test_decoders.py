"""Decoder bundles give the tokens that PyTorch gives, in ragged batches of mixed tasks as one by one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime_genai as og
import pytest
import torch

from eptx import Session
from eptx.bundle import Bundle
from eptx.errors import NotSupportedError
from eptx.exporter.trained import Trained
from eptx.runtime.generation import decoder
from eptx.runtime.ort import model as ort_model
from tests.runtime.generation.conftest import Workshop
from tests.support.trained import as_task, by_task

LENGTHS = (3, 11, 1, 7, 24, 5, 2, 16)
PROMPTS = [np.random.default_rng(n).integers(4, 120, length).tolist() for n, length in enumerate(LENGTHS)]
TASKS = ["task0", "task1", "task2", "base", "task2", "task1", "task0", "base"]
NEW = 12
PAD, EOS = 0, 2


def _generate(reference: Trained, prompt: list[int], task: int) -> tuple[int, ...]:
    """What transformers' own generate gives for one prompt."""
    with as_task(reference, [task]) as model:
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=PAD,
        )
    return tuple(made[0, len(prompt) :].tolist())


def _greedy(reference: Trained, prompts: Sequence[Sequence[int]], begin: Any, keep: Any) -> list[list[int]]:
    """Greedy tokens of rows of one length, with the adapter's state set before the prompt and again after it.

    A row that is done is fed the padding token, as GenAI does.
    """
    tokens, cache, made = torch.tensor(prompts), None, []
    done = torch.zeros(len(prompts), dtype=torch.bool)
    begin()
    with torch.no_grad():
        for step in range(NEW):
            result = reference.model(input_ids=tokens, past_key_values=cache, use_cache=True)
            if step == 0:
                keep()
            assert not result.logits.isnan().any()
            chosen, cache = result.logits[:, -1].argmax(-1), result.past_key_values
            made.append(torch.where(done, -1, chosen).tolist())
            tokens = torch.where(done, PAD, chosen)[:, None]
            done |= chosen == EOS
    return [[token for token in row if token >= 0] for row in np.array(made).T.tolist()]


def _route_by(reference: Trained, routing: Literal["batch", "row"]) -> None:
    """The router's own route from now on."""
    with as_task(reference, [0], routing=routing):
        pass


def _ids(bundle: Bundle, tasks: Sequence[str]) -> list[int]:
    ids = {task.name: task.id for task in bundle.manifest.tasks}
    return [ids[task] for task in tasks]


@pytest.mark.parametrize("native", ["1", "0"])
@pytest.mark.parametrize("name", ["ept", "ept dynamic", "lora"])
def test_tasks(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str, native: str) -> None:
    monkeypatch.setenv("EPTX_NATIVE", native)
    bundle, reference = workshop.bundle(name), workshop.reference(name)
    known = {task.name for task in bundle.manifest.tasks}
    tasks = [task if task in known else "base" for task in TASKS]
    session = Session(bundle, threads=1)
    made = session.generate(PROMPTS, tasks, max_new_tokens=NEW)
    for prompt, task, got in zip(PROMPTS, _ids(bundle, tasks), made.token_ids, strict=True):
        assert got == _generate(reference, prompt, task=task)
    assert made.tasks == tuple(tasks)
    assert len({made.token_ids[i][:3] for i in range(8)}) > 4
    alone = [session.generate([p], t, max_new_tokens=NEW).token_ids[0] for p, t in zip(PROMPTS, tasks, strict=True)]
    assert tuple(alone) == made.token_ids
    kernels = session.info()["kernels"]
    assert kernels["running"] or native == "0" or "without them" in kernels["reason"]


def test_a_task_matters(workshop: Workshop) -> None:
    session = Session(workshop.bundle("ept"), threads=1)
    made = session.generate([PROMPTS[4]] * 4, ["task0", "task1", "task2", "base"], max_new_tokens=NEW)
    assert len(set(made.token_ids)) == 4


def test_an_inferred_task_is_kept(workshop: Workshop) -> None:
    """The prompt's positions infer for each module; what they say together serves every later token."""
    session = Session(workshop.bundle("ept dynamic"), threads=1)
    reference = workshop.reference("ept dynamic")
    made = session.generate(PROMPTS, "auto", max_new_tokens=NEW)
    names = [task.name for task in session.manifest.tasks]
    for i, prompt in enumerate(PROMPTS):
        ones = np.ones((1, len(prompt)), np.int64)
        used = by_task(reference, {"input_ids": np.array([prompt]), "attention_mask": ones}, [-1]).task
        assert used is not None
        assert made.tasks[i] == names[used[0]]
        infer, keep = (partial(reference.hosts[0].state.set, torch.tensor(ids), lowest=-1) for ids in ([-1], used))
        want = _greedy(reference, [prompt], infer, keep)
        assert made.token_ids[i] == tuple(want[0])
    assert len(set(made.tasks)) > 1
    mixed = session.generate(PROMPTS[:3], ["auto", "task1", "auto"], max_new_tokens=NEW)
    assert mixed.tasks == (made.tasks[0], "task1", made.tasks[2])
    assert (mixed.token_ids[0], mixed.token_ids[2]) == (made.token_ids[0], made.token_ids[2])


def test_a_route_per_row(workshop: Workshop) -> None:
    """Row routing looks at the positions of each call, so a token's route is its own."""
    session = Session(workshop.bundle("tucka row"), threads=1)
    reference = workshop.reference("tucka row")
    made = session.generate(PROMPTS, max_new_tokens=NEW)
    for i, prompt in enumerate(PROMPTS):
        want = _greedy(reference, [prompt], partial(_route_by, reference, "row"), lambda: None)
        assert made.token_ids[i] == tuple(want[0])
        assert session.generate([prompt], max_new_tokens=NEW).token_ids[0] == made.token_ids[i]


def test_the_route_of_the_prompt(workshop: Workshop) -> None:
    """It is kept; by `test_a_route_per_row`'s rule other tokens would come."""
    session = Session(workshop.bundle("tucka prompt"), threads=1)
    reference = workshop.reference("tucka prompt")
    made = session.generate(PROMPTS, max_new_tokens=NEW)
    state = reference.hosts[0].state

    def keep() -> None:
        state.forced = state.route

    for i, prompt in enumerate(PROMPTS):
        want = _greedy(reference, [prompt], partial(_route_by, reference, "row"), keep)
        assert made.token_ids[i] == tuple(want[0])
    anew = Session(workshop.bundle("tucka row"), threads=1).generate(PROMPTS, max_new_tokens=NEW)
    assert made.token_ids != anew.token_ids


def test_a_route_for_the_batch(workshop: Workshop) -> None:
    session = Session(workshop.bundle("tucka batch"), threads=1)
    reference = workshop.reference("tucka batch")
    prompts = [prompt[:5] for prompt in PROMPTS if len(prompt) >= 5]
    made = session.generate(prompts, max_new_tokens=NEW)
    assert [list(ids) for ids in made.token_ids] == _greedy(
        reference, prompts, partial(_route_by, reference, "batch"), lambda: None
    )


def _stock(bundle: Path, inputs: dict[str, np.ndarray]) -> list[list[int]]:
    """A batch in plain GenAI, as its own examples call it; rows that are done go on with the padding token."""
    model = og.Model(str(bundle))
    params = og.GeneratorParams(model)
    longest = max(map(len, PROMPTS))
    params.set_search_options(max_length=longest + NEW, batch_size=len(PROMPTS), do_sample=False)
    generator = og.Generator(model, params)
    for name, array in inputs.items():
        generator.set_model_input(name, array)
    generator.append_tokens(np.array([prompt + [PAD] * (longest - len(prompt)) for prompt in PROMPTS], np.int32))
    made = []
    while not generator.is_done():
        generator.generate_next_token()
        made.append(generator.get_next_tokens())
    rows = np.array(made).T.tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]


def test_static_in_stock_genai(workshop: Workshop) -> None:
    bundle, reference = workshop.bundle("ept static"), workshop.reference("ept static")
    made = _stock(bundle.path, {})
    for prompt, got in zip(PROMPTS, made, strict=True):
        assert tuple(got) == _generate(reference, prompt, task=1)
    assert [list(ids) for ids in Session(bundle, threads=1).generate(PROMPTS, max_new_tokens=NEW).token_ids] == made


@pytest.mark.parametrize("name", ["ept", "lora", "ept int4"])
def test_conditioned_in_stock_genai(workshop: Workshop, name: str) -> None:
    bundle = workshop.bundle(name)
    known = {task.name for task in bundle.manifest.tasks}
    tasks = [task if task in known else "base" for task in TASKS]
    made = _stock(bundle.path, {"task_id": np.array(_ids(bundle, tasks))})
    ours = Session(bundle, threads=1).generate(PROMPTS, tasks, max_new_tokens=NEW)
    assert [list(ids) for ids in ours.token_ids] == made


def test_rows_end_on_their_own(workshop: Workshop) -> None:
    """A token that ends answers ends its row alone, in GenAI and here."""
    bundle = workshop.bundle("ept")
    plain = Session(bundle, threads=1).generate(PROMPTS, TASKS, max_new_tokens=NEW)
    end = plain.token_ids[0][2]
    generation = replace(bundle.manifest.generation, eos=(2, end))  # type: ignore[type-var]
    session = Session(replace(bundle, manifest=replace(bundle.manifest, generation=generation)), threads=1)
    made = session.generate(PROMPTS, TASKS, max_new_tokens=NEW)
    for before, ids, reason in zip(plain.token_ids, made.token_ids, made.finish_reasons, strict=True):
        length = before.index(end) + 1 if end in before else NEW
        assert ids == before[:length]
        assert reason == ("stop" if end in before else "length")
    assert set(made.finish_reasons) == {"stop", "length"}
    alone = session.generate([PROMPTS[0]], TASKS[0], max_new_tokens=NEW)
    assert alone.token_ids[0] == made.token_ids[0]


def test_the_whole_context(workshop: Workshop) -> None:
    session = Session(workshop.bundle("ept"), threads=1)
    prompt = np.random.default_rng(5).integers(4, 120, 120)
    made = session.generate([prompt, prompt[:4]], "task1", max_new_tokens=8)
    assert [len(ids) for ids in made.token_ids] == [8, 8]
    assert made.finish_reasons == ("length", "length")


def test_private_folders_are_removed(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = Session(workshop.bundle("ept"), threads=1)
    assert session.generate(PROMPTS, TASKS, max_new_tokens=2).finish_reasons == ("length",) * 8
    assert list(tmp_path.iterdir()) == []


def test_the_model_opens_when_it_is_used(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that runs does not load GenAI's copy of the weights, and the other way round."""
    opened: list[str] = []

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: opened.append(name) or real(*args))

    watch(ort_model, "open_bundle")
    watch(decoder, "_open")
    session = Session(workshop.bundle("ept"), threads=1)
    assert opened == []
    session.generate([PROMPTS[0]] * 2, "task1", max_new_tokens=1)
    session.generate([PROMPTS[0]], "task1", max_new_tokens=1)
    assert opened == ["_open"]
    session.run({"input_ids": [PROMPTS[0]]}, "task1")
    assert opened == ["_open", "open_bundle"]


def test_without_genai(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    session = Session(workshop.bundle("ept"), threads=1)
    with pytest.raises(NotSupportedError, match=r"pip install 'eptx\[generate\]'"):
        session.generate([PROMPTS[0]], "task1")
    assert session.run({"input_ids": [PROMPTS[0]]}, "task1")["logits"].shape == (1, 3, 120)


def test_kernels_that_do_not_load(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GenAI refuses the library; the model's functions answer instead, and `info` says why."""
    broken = tmp_path / "libeptx_ops.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr("eptx.runtime.ort.kernels.kernel_library", lambda: broken)
    session = Session(workshop.bundle("ept"), threads=1)
    made = session.generate(PROMPTS, TASKS, max_new_tokens=2)
    monkeypatch.undo()
    assert made == Session(workshop.bundle("ept"), threads=1).generate(PROMPTS, TASKS, max_new_tokens=2)
    kernels = session.info()["kernels"]
    assert not kernels["running"] and "they do not run this model" in kernels["reason"]


def test_a_bundle_that_asks_for_more(workshop: Workshop, tmp_path: Path) -> None:
    """What the bundle's own configuration says of the search and the session is not used."""
    folder = Path(shutil.copytree(workshop.bundle("ept").path, tmp_path / "b"))
    config = json.loads((folder / "genai_config.json").read_text())
    config["search"] |= {"repetition_penalty": 9.0, "min_length": 50, "do_sample": True}
    config["model"]["decoder"]["session_options"]["enable_cpu_mem_arena"] = False
    config["model"]["eos_token_id"] = list(range(120))
    (folder / "genai_config.json").write_text(json.dumps(config))
    bundle = replace(workshop.bundle("ept"), path=folder)
    made = Session(bundle, threads=1).generate(PROMPTS, TASKS, max_new_tokens=NEW)
    assert made == Session(workshop.bundle("ept"), threads=1).generate(PROMPTS, TASKS, max_new_tokens=NEW)

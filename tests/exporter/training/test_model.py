"""A model with task heads: saved, loaded again, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, PolyConfig, get_peft_model

from eptx import ExportOptions, Session, ValidateOptions, export, validate
from eptx.errors import AdapterError, UsageError
from eptx.exporter.training.heads import pool
from eptx.peft import EptConfig, TaskHeadBank, TaskTrainer, fit_task_embeddings, save_heads
from tests.exporter.training.small import LABELS, TARGETS, adapted, arguments, base, rows, tensors
from tests.support.minilm import EPT, EXAMPLE, minilm

METHODS = ["ept", "tucka"]


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path, Path]:
    """Method, model, base folder, and the folder where `Trainer` left its last checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    base().save_pretrained(folder / "base")
    model = adapted(request.param)
    args = arguments(folder / "run", max_steps=4, save_strategy="steps", save_steps=4)
    TaskTrainer(model=model, args=args, train_dataset=rows(48)).train()
    return request.param, model.eval(), folder / "base", folder / "run" / "checkpoint-4"


def logits(model: Any, given: list[dict[str, Any]]) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(**tensors(given))["logits"].numpy()
    return found


def test_peft_loads_what_was_saved(trained: Any, tmp_path: Path) -> None:
    _, model, _, checkpoint = trained
    again: Any = PeftModel.from_pretrained(base(), str(checkpoint)).eval()
    assert np.array_equal(logits(again, rows(9)), logits(model, rows(9)))
    assert again.peft_config["default"].tasks == list(LABELS)
    again.save_pretrained(tmp_path)
    for name in ("adapter_model.safetensors", "task_heads.safetensors"):
        assert (tmp_path / name).read_bytes() == (checkpoint / name).read_bytes(), name
    assert json.loads((tmp_path / "adapter_config.json").read_text())["inference_mode"]


def test_the_bundle_answers_as_the_trained_model(trained: Any, tmp_path: Path) -> None:
    """The checkpoint as the trainer left it: no file is added or changed by hand."""
    method, model, folder, checkpoint = trained
    mode: Any = "conditioned" if method == "ept" else "dynamic"
    bundle = export(folder, checkpoint, tmp_path / "bundle", ExportOptions(mode=mode))
    report = validate(bundle.path, ValidateOptions(base=folder, adapters=[checkpoint]))
    assert report.passed, report.reason
    assert {task.name: list(task.label_names) for task in bundle.manifest.tasks if task.name in LABELS} == LABELS
    given = rows(9)
    inputs = {name: tensor.numpy() for name, tensor in tensors(given).items() if name != "task"}
    got = Session(bundle).run(inputs, [list(LABELS)[row["task"]] for row in given])["logits"]
    wanted = logits(model, given)
    for row, own in enumerate(given):
        count = len(list(LABELS.values())[own["task"]])
        assert np.abs(got[row, :count] - wanted[row, :count]).max() < 1e-5


def test_folders_that_do_not_fit_are_refused(trained: Any, tmp_path: Path) -> None:
    """Labels in another order would be learnt, or read, as each other."""
    method, _, _, checkpoint = trained
    other = adapted(method, task_labels={**LABELS, "same": ["yes", "no"]})
    with pytest.raises(AdapterError, match="task_labels are others"):
        other.load_adapter(str(checkpoint), "default")
    shutil.copytree(checkpoint, tmp_path / "without")
    (tmp_path / "without" / "task_heads.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"task_heads\.safetensors"):
        adapted(method).load_adapter(str(tmp_path / "without"), "default")
    shutil.copytree(checkpoint, tmp_path / "narrow")
    (tmp_path / "narrow" / "task_heads.safetensors").write_bytes((EPT / "task_heads.safetensors").read_bytes())
    with pytest.raises(AdapterError, match="does not fit"):
        adapted(method).load_adapter(str(tmp_path / "narrow"), "default")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task_labels": {"same": ["no", "yes"]}}, "task_labels must name"),
        ({"task_labels": dict(reversed(LABELS.items()))}, "in their order"),
        ({"task_labels": {**LABELS, "score": []}}, "task_labels must name"),
        ({"task_head_pooling": "max"}, "task_head_pooling must be"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
    ],
)
def test_settings_that_make_no_heads_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        adapted("ept", **settings)


def test_one_adapter_a_model() -> None:
    model = adapted("ept")
    with pytest.raises(UsageError, match="one adapter"):
        model.add_adapter("other", model.active_peft_config)


def test_a_single_task_need_not_be_named() -> None:
    model = adapted("tucka", tasks=["three"], task_labels={"three": ["a", "b", "c"]}).eval()
    given = [{**row, "task": 0} for row in rows(4)]
    with torch.no_grad():
        without = model(**{name: tensor for name, tensor in tensors(given).items() if name != "task"})["logits"]
    assert np.array_equal(without.numpy(), logits(model, given))


def test_a_language_model_takes_the_tasks_of_its_rows(tmp_path: Path) -> None:
    """Without heads: the class's own loss, by its own labels, and what the method adds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 40}
    lm = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=2, **sizes))
    config = EptConfig(r=4, kernel_sizes=[2, 3], tasks=["a", "b"], target_modules=["q_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(lm, config)
    given = [{"input_ids": [3, 4, 5 + i % 2], "labels": [-100, 4, 5 + i % 2], "task": i % 2} for i in range(8)]
    trainer = TaskTrainer(model=model, args=arguments(tmp_path, max_steps=2), train_dataset=given)
    batch = {name: torch.tensor([row[name] for row in given]) for name in given[0]}
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(model.train(), dict(batch))
    logits = model(input_ids=batch["input_ids"], task=batch["task"]).logits
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert torch.allclose(loss, wanted + model.base_model.auxiliary_loss, atol=1e-6)
    assert not torch.equal(logits, model(input_ids=batch["input_ids"], task=1 - batch["task"]).logits)
    trainer.train()


def test_adapters_of_older_versions_bring_their_heads() -> None:
    """The example's, whose settings have no task_type; a pair of the validation rows for each label."""
    from transformers import AutoModel, AutoTokenizer

    model: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(minilm()), str(EPT)).eval()
    config = model.active_peft_config
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    samples = [json.loads(line) for line in (EXAMPLE / "samples.jsonl").read_text().splitlines()]
    own = [row for row in samples if row["task"] == "sst2"]
    inputs = tokenizer([row["text"] for row in own], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, task=torch.full((len(own),), config.tasks.index("sst2")))["logits"][:, :2].argmax(1)
    assert (found == torch.tensor([row["label"] for row in own])).double().mean() > 0.7


def test_heads_beside_what_peft_saved(tmp_path: Path) -> None:
    """A method that PEFT trains, with the heads of all its tasks, as a bundle."""
    base().save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    config = PolyConfig(r=2, n_tasks=3, n_skills=2, target_modules=TARGETS, init_weights=False)
    model: Any = get_peft_model(base(), config)
    heads = TaskHeadBank(16, {task: len(names) for task, names in LABELS.items()})
    model.eval().save_pretrained(tmp_path / "adapter")
    save_heads(tmp_path / "adapter", heads, "mean", labels=LABELS)
    bundle = export(tmp_path / "base", tmp_path / "adapter", tmp_path / "bundle", ExportOptions(mode="conditioned"))
    assert validate(bundle.path).passed
    assert {task.name: list(task.label_names) for task in bundle.manifest.tasks if task.name in LABELS} == LABELS
    given = tensors(rows(6))
    tasks = given.pop("task")
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    got = Session(bundle).run(arrays, [list(LABELS)[task] for task in tasks.tolist()])["logits"]
    with torch.no_grad():
        hidden = model.base_model(**given, task_ids=tasks)
        want = heads(pool(hidden, given["attention_mask"], "mean"), tasks).numpy()
    for row, task in enumerate(tasks.tolist()):
        count = len(list(LABELS.values())[task])
        assert np.abs(got[row, :count] - want[row, :count]).max() < 1e-5
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        save_heads(tmp_path, heads, "mean")


def test_pooling_reads_unpadded_positions() -> None:
    class Output:
        last_hidden_state = torch.arange(12.0).reshape(2, 3, 2)
        pooler_output = torch.full((2, 2), 7.0)

    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(Output, mask, "mean").tolist() == [[1.0, 2.0], [8.0, 9.0]]
    assert pool(Output, None, "mean").tolist() == [[2.0, 3.0], [8.0, 9.0]]
    assert pool(Output, mask, "first").tolist() == [[0.0, 1.0], [6.0, 7.0]]
    assert pool(Output, mask, "pooler").tolist() == [[7.0, 7.0], [7.0, 7.0]]
    with pytest.raises(ValueError, match="pooling"):
        pool(Output, mask, "max")


def test_fitted_embeddings_tell_the_task_and_leave_the_routing_alone() -> None:
    """Each task has tokens of its own; without being told, the modules find out whose row it is."""
    rng = np.random.default_rng(0)
    given = [
        {"input_ids": rng.integers(5 + 18 * task, 23 + 18 * task, 6).tolist(), "task": task} for task in [0, 1, 2] * 16
    ]
    model, batch = adapted("ept").eval(), tensors(given)
    untold = {**batch, "task": torch.full_like(batch["task"], -1)}

    def right() -> float:
        model(**untold)
        return float((model.base_model.state.similarity.argmax(1) == batch["task"]).double().mean())

    with torch.no_grad():
        before, told = right(), model(**batch)["logits"]
    fit_task_embeddings(model, [batch], log=lambda line: None)
    with torch.no_grad():
        assert before < 0.5 < 0.7 < right()
        assert torch.allclose(model(**batch)["logits"], told, atol=1e-5)
        used = model.base_model.state.ids
        assert torch.equal(used, batch["task"])
        inferred = model(**untold)["logits"]
    found = model.base_model.state.similarity.argmax(1)
    heads = [len(list(LABELS.values())[task]) for task in found.tolist()]
    assert all(bool((own[count:] == 0).all()) for own, count in zip(inferred, heads, strict=True)), "the inferred head"
    assert all(bool((own[:count] != 0).all()) for own, count in zip(inferred, heads, strict=True))


def test_rows_that_are_not_told_their_task_still_learn_it() -> None:
    model = adapted("ept", infer_fraction=1.0).train()
    model(**tensors(rows(9)))
    state = model.base_model.state
    assert (state.ids == -1).all() and torch.equal(state.targets, tensors(rows(9))["task"])
    assert model.base_model.auxiliary_loss is not None
    model.eval().base_model.model(**{name: tensor for name, tensor in tensors(rows(9)).items() if name != "task"})
    assert (state.ids != -1).all() and model.base_model.auxiliary_loss is None

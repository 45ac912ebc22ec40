"""Training pieces: batches, heads, losses, checkpoints, and saving without losing a bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, PolyConfig
from transformers import BertConfig, BertModel

from eptx import ExportOptions, Session, export, validate
from eptx.errors import AdapterError
from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.task_embeddings import fit_task_embeddings
from eptx.exporter.methods.read import read_adapter
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.training import (
    Example,
    TaskClassifier,
    TaskHeadBank,
    Trainer,
    TrainSettings,
    add_adapter,
    collate,
    length_batches,
    load_adapter,
    pool,
    save_adapter,
    save_heads,
    task_head_loss,
)
from tests.support.trained import by_task, trained_model

TARGETS = r"encoder\.layer\.\d+\..*\.(query|value|dense)"
LABELS = {"same": 2, "score": 1, "three": 3}


def base() -> BertModel:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config).eval()


def configuration(method: str) -> Any:
    common: dict[str, Any] = {"target_modules": TARGETS, "tasks": list(LABELS), "task_head_pooling": "mean"}
    if method == "ept":
        labels = {"same": ["no", "yes"], "score": ["score"], "three": ["a", "b", "c"]}
        return EptConfig(r=4, kernel_sizes=[2, 3, 4, 2], top_k=2, task_labels=labels, **common)
    return TuckaConfig(r=4, k=2, alpha=20, **common)


def classifier(method: str, seed: int = 0) -> TaskClassifier:
    torch.manual_seed(seed)
    model = add_adapter(base(), configuration(method))
    return TaskClassifier(model, TaskHeadBank(16, LABELS), "mean")


def examples(count: int = 36) -> list[Example]:
    """Rows whose label can be read off their tokens, of three tasks."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        ids = tuple(int(v) for v in rng.integers(5, 60, rng.integers(3, 12)))
        task = i % 3
        label = (ids[0] % 2, ids[0] / 60, ids[0] % 3)[task]
        rows.append(Example(ids, (0,) * len(ids), task, float(label)))
    return rows


def weights_of(model: TaskClassifier) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["ept", "tucka"])
def test_saving_and_loading_keeps_every_bit(method: str, tmp_path: Path) -> None:
    trained = classifier(method).eval()
    if method == "tucka":
        trained.model.base_model.initialize_router([collate(examples(6), 0).inputs])
    save_adapter(trained.model, tmp_path / "a", heads=trained.heads, base_name="org/name")
    model, heads = load_adapter(base(), tmp_path / "a")
    assert heads is not None
    loaded = TaskClassifier(model, heads, "mean")
    before, after = weights_of(trained), dict(loaded.named_parameters())
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())
    batch = collate(examples(6), 0)
    with torch.no_grad():
        assert torch.equal(trained(batch.inputs, batch.tasks), loaded(batch.inputs, batch.tasks))
    save_adapter(model, tmp_path / "b", heads=heads, base_name="org/name")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["peft_type"] == method.upper()
    assert config["base_model_name_or_path"] == "org/name"
    assert config.get("router_initialized", True) is True


@pytest.mark.parametrize("method", ["ept", "tucka"])
def test_the_exporter_reads_what_training_saves(method: str, tmp_path: Path) -> None:
    """Names, settings and heads: the reference on the arrays of the files is the trained classifier."""
    trained = classifier(method).eval()
    base().save_pretrained(tmp_path / "base")
    save_adapter(trained.model, tmp_path / "adapter", heads=trained.heads)
    adapter = read_adapter([tmp_path / "adapter"])
    assert adapter.tasks == tuple(LABELS)
    reference = trained_model(tmp_path / "base", [tmp_path / "adapter"], dtype=torch.float32)
    batch = collate(examples(6), 0)
    got = by_task(reference, {k: v.numpy() for k, v in batch.inputs.items()}, batch.tasks.numpy()).outputs["logits"]
    with torch.no_grad():
        want = trained(batch.inputs, batch.tasks).numpy()
    assert np.abs(got - want).max() < 1e-5


def test_heads_beside_what_peft_saved(tmp_path: Path) -> None:
    """A method that PEFT trains, with the heads of all its tasks, as a bundle."""
    base().save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    model: Any = add_adapter(base(), PolyConfig(r=2, n_tasks=3, n_skills=2, target_modules=TARGETS, init_weights=False))
    heads, batch = TaskHeadBank(16, LABELS), collate(examples(6), 0)
    model.eval().save_pretrained(tmp_path / "adapter")
    names = {"same": ("no", "yes"), "score": ("score",), "three": ("a", "b", "c")}
    save_heads(tmp_path / "adapter", heads, "mean", labels=names)
    bundle = export(tmp_path / "base", tmp_path / "adapter", tmp_path / "bundle", ExportOptions(mode="conditioned"))
    assert validate(bundle.path).passed
    assert {task.name: task.label_names for task in bundle.manifest.tasks if task.name in LABELS} == names
    arrays = {name: tensor.numpy() for name, tensor in batch.inputs.items()}
    got = Session(bundle).run(arrays, [list(LABELS)[task] for task in batch.tasks.tolist()])["logits"]
    with torch.no_grad():
        hidden = model.base_model(**batch.inputs, task_ids=batch.tasks)
        want = heads(pool(hidden, batch.inputs["attention_mask"], "mean"), batch.tasks).numpy()
    for row, task in enumerate(batch.tasks.tolist()):
        count = list(LABELS.values())[task]
        assert np.abs(got[row, :count] - want[row, :count]).max() < 1e-5
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        save_heads(tmp_path, heads, "mean")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_itself_loads_the_folder(tmp_path: Path) -> None:
    trained = classifier("ept").eval()
    save_adapter(trained.model, tmp_path)
    model: Any = PeftModel.from_pretrained(base(), str(tmp_path))
    kept = {n: p for n, p in trained.model.named_parameters() if "lora_" in n}
    loaded = dict(model.named_parameters())
    assert all(torch.equal(p, loaded[name]) for name, p in kept.items())


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_adapter(classifier("ept").model, tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(AdapterError, match="shape"):
        load_adapter(base(), tmp_path)
    path.write_text(json.dumps(config | {"target_modules": ["query"]}))
    with pytest.raises(AdapterError, match="one side only"):
        load_adapter(base(), tmp_path)
    path.write_text(json.dumps(config | {"peft_type": "LORA"}))
    with pytest.raises(AdapterError, match="peft_type"):
        load_adapter(base(), tmp_path)


@pytest.mark.parametrize("method", ["ept", "tucka"])
def test_training_lowers_the_loss_and_only_trains_the_adapter(method: str, tmp_path: Path) -> None:
    model = classifier(method)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    rows = examples()
    weight = 0.1 if method == "ept" else 0.0
    settings = TrainSettings(epochs=30, tokens=128, learning_rate=1e-2, task_loss_weight=weight)

    def loss() -> float:
        batch = collate(rows, 0)
        with torch.no_grad():
            return float(task_head_loss(model(batch.inputs, batch.tasks), batch.tasks, batch.labels, [2, 1, 3]))

    before = loss()
    Trainer(model, rows, settings, pad_token_id=0, log=lambda line: None).run()
    assert loss() < 0.7 * before
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_a_resumed_run_is_the_unbroken_run(tmp_path: Path) -> None:
    def trainer(steps: int | None, seed: int) -> Trainer:
        settings = TrainSettings(epochs=2, tokens=64, max_steps=steps, task_loss_weight=0.1, warmup=0.0)
        return Trainer(classifier("ept", seed), examples(), settings, pad_token_id=0, checkpoint=path, log=print)

    path = tmp_path / "unbroken.safetensors"
    whole = trainer(None, 0)
    whole.run()
    path = tmp_path / "broken.safetensors"
    broken = trainer(None, 0)
    broken.batches, planned = broken.batches[:4], broken.batches
    # The schedule must see the whole plan: the break is a kill, not a shorter run.
    broken._schedule = whole._schedule  # type: ignore[method-assign]
    broken.run()
    assert len(planned) > 4
    again = trainer(None, 1)
    again.run()
    assert again.step == len(planned)
    for name, p in weights_of(whole.classifier).items():
        assert torch.equal(p, weights_of(again.classifier)[name]), name


def test_batches_hold_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(1).integers(5, 100, 500).tolist()
    batches = length_batches(lengths, 1024, seed=4)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert max(padded) <= 1024
    assert sum(padded) < 1.1 * sum(lengths)
    assert batches == length_batches(lengths, 1024, seed=4) != length_batches(lengths, 1024, seed=5)
    assert length_batches([3, 900, 4], 100, None) == [[0, 2], [1]]


def test_loss_is_the_mean_over_rows() -> None:
    logits = torch.tensor([[2.0, 0.0, 9.0], [1.5, 9.0, 9.0], [0.0, 1.0, 2.0]])
    tasks, labels = torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.5, 2.0])
    cross = torch.nn.functional.cross_entropy
    expected = cross(logits[:1, :2], torch.tensor([1])) + 0.5 * 1.0 + cross(logits[2:], torch.tensor([2]))
    assert torch.allclose(task_head_loss(logits, tasks, labels, [2, 1, 3]), expected / 3)


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
    rows = [
        Example(tuple(int(v) for v in rng.integers(5 + 18 * task, 23 + 18 * task, 6)), (0,) * 6, task, 0.0)
        for task in [0, 1, 2] * 16
    ]
    model = classifier("ept").eval()
    tuner: Any = model.model.base_model
    batch = collate(rows, 0)

    def right() -> float:
        model(batch.inputs, batch.tasks, torch.full_like(batch.tasks, -1))
        return float((tuner.state.similarity.argmax(1) == batch.tasks).double().mean())

    with torch.no_grad():
        before, told = right(), model(batch.inputs, batch.tasks)
    fit_task_embeddings(model.model, [batch], log=lambda line: None)
    with torch.no_grad():
        assert before < 0.5 < 0.7 < right()
        assert torch.allclose(model(batch.inputs, batch.tasks), told, atol=1e-5)


def test_rows_that_are_not_told_their_task_still_learn_it() -> None:
    model = classifier("ept")
    settings = TrainSettings(epochs=1, tokens=144, task_loss_weight=1.0, infer_fraction=1.0)
    trainer = Trainer(model, examples(), settings, pad_token_id=0, log=lambda line: None)
    trainer.run()
    state: Any = model.model.base_model.state
    assert (state.ids == -1).all()
    assert state.losses and state.targets is None

"""`TaskTrainer` against torch by hand, and what transformers' Trainer does around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EarlyStoppingCallback, TrainerCallback

from eptx.errors import DataError, UsageError
from eptx.peft import TaskSampler, TaskTrainer
from tests.exporter.training.small import LABELS, adapted, arguments, base, rows, tensors

METHODS = ["ept", "tucka"]


def trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def loss_by_hand(model: Any, given: list[dict[str, Any]], weights: Tensor | None = None) -> Tensor:
    """The mean over rows of what PyTorch's own losses give for each row alone."""
    logits = model(**tensors(given))["logits"]
    terms = []
    for own, row in zip(logits, given, strict=True):
        count, label = len(list(LABELS.values())[row["task"]]), torch.tensor(row["labels"])
        if count == 1:
            terms.append(0.5 * F.mse_loss(own[0], label))
        else:
            term = F.cross_entropy(own[None, :count], label.long()[None])
            terms.append(term * weights[label.long()] if weights is not None and row["task"] == 2 else term)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulated", [1, 4])
def test_the_first_step_is_that_of_a_loop_by_hand(method: str, accumulated: int, tmp_path: Path) -> None:
    """One batch at once, or in four parts of which two hold no row of some task."""
    given = sorted(rows(12), key=lambda row: row["task"])
    by_hand, model = adapted(method, init_weights=True), adapted(method)
    if method == "ept":
        by_hand.base_model._settings().task_loss_weight = model.base_model._settings().task_loss_weight = 0.0
    else:  # centroids are set by the first part of the batch
        first = 12 // accumulated
        for each in (by_hand, model):
            torch.manual_seed(5)
            each.train()(**tensors(given[:first]))
        by_hand.base_model.set_route(0, [0.5, 0.6])
        model.base_model.set_route(0, [0.5, 0.6])
    by_hand.train()
    optimizer = torch.optim.SGD([p for p in by_hand.parameters() if p.requires_grad], lr=0.1)
    loss_by_hand(by_hand, given).backward()
    optimizer.step()
    args = arguments(
        tmp_path,
        per_device_train_batch_size=12 // accumulated,
        gradient_accumulation_steps=accumulated,
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
    )
    before = trained(model)
    TaskTrainer(model=model, args=args, train_dataset=given).train()
    wanted = trained(by_hand)
    assert any(not torch.equal(before[name], p) for name, p in wanted.items())
    for name, p in trained(model).items():
        assert torch.allclose(p, wanted[name], atol=2e-6), name


def test_the_method_adds_its_task_loss(tmp_path: Path) -> None:
    """By the formula of the released code: cross-entropy of the cosines of position 0 and the embeddings, over 0.05."""
    given, model = rows(9), adapted("ept", task_loss_weight=0.3).train()
    seen: list[Tensor] = []
    layers = [m for m in model.modules() if hasattr(m, "lora_task_embedding")]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 0]))
    model(**tensors(given))
    terms = []
    for layer, first in zip(layers, seen, strict=True):
        embedding = layer.lora_task_embedding["default"].weight
        cosine = F.cosine_similarity(first[:, None], embedding[None], dim=2)
        terms.append(F.cross_entropy(cosine / 0.05, tensors(given)["task"]))
    trainer = TaskTrainer(model=model, args=arguments(tmp_path), train_dataset=given)
    trainer.current_gradient_accumulation_steps = 1
    batch = tensors(given) | {"labels": torch.tensor([row["labels"] for row in given])}
    loss = trainer.compute_loss(model, batch)
    assert torch.allclose(loss, loss_by_hand(model, given) + 0.3 * torch.stack(terms).mean(), atol=1e-6)
    trainer.current_gradient_accumulation_steps = 4  # this batch's share of a mean over four
    loss = trainer.compute_loss(model, batch, num_items_in_batch=36)
    assert torch.allclose(loss, (loss_by_hand(model, given) + 0.3 * torch.stack(terms).mean()) / 4, atol=1e-6)
    assert torch.allclose(trainer.compute_loss(model.eval(), batch), loss_by_hand(model, given), atol=1e-6)


def test_weights_of_classes_and_smoothing_are_those_of_pytorch(tmp_path: Path) -> None:
    given, model = rows(12), adapted("tucka").eval()
    batch = tensors(given) | {"labels": torch.tensor([row["labels"] for row in given])}
    weights = [0.2, 1.0, 3.0]
    trainer = TaskTrainer(model=model, args=arguments(tmp_path), train_dataset=given, class_weights={"three": weights})
    wanted = loss_by_hand(model, given, torch.tensor(weights))
    assert torch.allclose(trainer.compute_loss(model, batch), wanted, atol=1e-6)
    own = [row for row in given if row["task"] == 2]
    smooth = TaskTrainer(model=model, args=arguments(tmp_path, label_smoothing_factor=0.2), train_dataset=given)
    part = tensors(own) | {"labels": torch.tensor([row["labels"] for row in own])}
    wanted = F.cross_entropy(model(**tensors(own))["logits"][:, :3], part["labels"].long(), label_smoothing=0.2)
    assert torch.allclose(smooth.compute_loss(model, part), wanted, atol=1e-6)
    for wrong in ({"four": [1.0]}, {"three": [1.0, 1.0]}, {"score": [1.0]}):
        with pytest.raises(UsageError, match="class_weights"):
            TaskTrainer(model=model, args=arguments(tmp_path), train_dataset=given, class_weights=wrong)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_more_than_the_majority(method: str, tmp_path: Path) -> None:
    """On rows that it has not seen; the base does not change."""
    model, held_out = adapted(method), rows(90, seed=1)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    args = arguments(tmp_path, num_train_epochs=8, learning_rate=3e-2, per_device_train_batch_size=24)
    trainer = TaskTrainer(model=model, args=args, train_dataset=rows(144), eval_dataset=held_out)
    first = trainer.evaluate()
    trainer.train()
    last = trainer.evaluate()
    assert last["eval_loss"] < 0.4 * first["eval_loss"]
    for task, name in ((0, "same"), (2, "three")):
        labels = [row["labels"] for row in held_out if row["task"] == task]
        majority = max(labels.count(label) for label in labels) / len(labels)
        assert last[f"eval_{name}_accuracy"] > majority + 0.2
    assert last["eval_score_pearson"] > 0.9
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    logits, (labels, tasks), _ = trainer.predict(held_out)
    right = logits[tasks == 2].argmax(1) == labels[tasks == 2]
    assert last["eval_three_accuracy"] == pytest.approx(right.mean())


class _Spoil(TrainerCallback):
    """From the end of the third epoch on, what was learnt is lost."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.epoch >= 3:
            with torch.no_grad():
                for p in model.parameters():
                    if p.requires_grad:
                        p.normal_(std=2)


@pytest.mark.parametrize("method", METHODS)
def test_it_ends_early_with_the_best_checkpoint(method: str, tmp_path: Path) -> None:
    """Heads, adapter and centroids are those of the epoch that was best."""
    best: list[dict[str, Tensor]] = []

    class Keep(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            best.append(trained(model))

    args = arguments(
        tmp_path,
        num_train_epochs=12,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer = TaskTrainer(
        model=adapted(method),
        args=args,
        train_dataset=rows(48),
        eval_dataset=rows(24, seed=1),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2), _Spoil(), Keep()],
    )
    trainer.train()
    assert trainer.state.epoch < 12
    number = int(trainer.state.best_global_step / 4) - 1
    assert number < len(best) - 1
    for name, p in trained(trainer.model).items():
        assert torch.equal(p, best[number][name]), name


class _Stop(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == 5


@pytest.mark.parametrize(("method", "mix"), [("ept", 1.0), ("tucka", 0.0)])
def test_a_resumed_run_is_the_unbroken_run(method: str, mix: float, tmp_path: Path) -> None:
    """Centroids and heads too, in a model that is made anew; also in the middle of an epoch."""
    given = rows(60)[:-3]
    settings: dict[str, Any] = {"max_steps": 8, "save_strategy": "steps", "save_steps": 5}

    def run(folder: str, *callbacks: TrainerCallback, resume: bool = False) -> Any:
        model = adapted(method)
        trainer = TaskTrainer(
            model=model,
            args=arguments(tmp_path / folder, **settings),
            train_dataset=given,
            callbacks=[*callbacks],
            mix=mix,
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / folder / "checkpoint-5") if resume else None)
        return model

    whole = trained(run("whole"))
    broken = trained(run("broken", _Stop()))
    assert any(not torch.equal(p, whole[name]) for name, p in broken.items())
    again = trained(run("broken", resume=True))
    for name, p in again.items():
        assert torch.allclose(p, whole[name], atol=1e-6), name


def test_the_mix_draws_small_tasks_more_often() -> None:
    tasks = [0] * 800 + [1] * 200

    def share(mix: float, epoch: int = 0) -> float:
        sampler = TaskSampler(tasks, mix, seed=1)
        sampler.set_epoch(epoch)
        return float(np.mean([tasks[row] for row in sampler]))

    assert abs(share(1.0) - 0.2) < 0.05
    assert abs(share(0.5) - 1 / 3) < 0.05  # 1 / (1 + sqrt(4))
    assert abs(share(0.0) - 0.5) < 0.05
    assert share(0.0) == share(0.0) != share(0.0, epoch=1)


def test_every_epoch_draws_anew(tmp_path: Path) -> None:
    given = rows(24)
    trainer = TaskTrainer(model=adapted("tucka"), args=arguments(tmp_path), train_dataset=given, mix=0.5)
    loader = trainer.get_train_dataloader()
    seen = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        seen.append(torch.cat([batch["input_ids"] for batch in loader]))
    assert not torch.equal(*seen)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": 3}, "row 4 has task 3: it must be an id from 0 to 2"),
        ({"task": -1}, "row 4 has task -1"),
        ({"task": "three"}, "row 4 has task 'three'"),
        ({"task": None}, "row 4 has task None"),
        ({"labels": 2.0, "task": 0}, "row 4 has label 2.0, which task 'same' has not"),
        ({"labels": 0.5, "task": 2}, "row 4 has label 0.5"),
        ({"labels": float("nan"), "task": 1}, "row 4 has label nan"),
        ({"labels": None}, "row 4 has label None"),
    ],
)
def test_rows_that_would_train_a_wrong_head_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = rows(9)
    given[4] |= wrong
    with pytest.raises(DataError, match=message):
        TaskTrainer(model=adapted("tucka"), args=arguments(tmp_path), train_dataset=given)


def test_what_would_go_wrong_in_silence_is_refused(tmp_path: Path) -> None:
    model, args = adapted("ept"), arguments(tmp_path)
    with pytest.raises(DataError, match="task 'score' has no row"):
        TaskTrainer(model=model, args=args, train_dataset=[row for row in rows(9) if row["task"] != 1])
    with pytest.raises(UsageError, match="compute_loss_func"):
        TaskTrainer(model=model, args=args, train_dataset=rows(9), compute_loss_func=lambda *_: 0)
    with pytest.raises(UsageError, match="mix must"):
        TaskTrainer(model=model, args=args, train_dataset=rows(9), mix=2.0)
    with pytest.raises(UsageError, match="no tasks"):
        TaskTrainer(model=base(), args=args, train_dataset=rows(9))
    with pytest.raises(UsageError, match="the batch has no task"):
        model(**{name: value for name, value in tensors(rows(9)).items() if name != "task"})


def test_a_task_with_one_row_counts_and_has_a_metric(tmp_path: Path) -> None:
    given = [row for row in rows(9) if row["task"] != 1] + [row for row in rows(9) if row["task"] == 1][:1]
    trainer = TaskTrainer(model=adapted("ept"), args=arguments(tmp_path, max_steps=1), train_dataset=given)
    trainer.train()
    found = trainer.evaluate(given)
    assert found["eval_score_pearson"] == 0.0 and np.isfinite(found["eval_mean"])
    unlabelled = [{**row, "labels": -100.0} if row["task"] == 1 else row for row in given]
    assert "eval_score_pearson" not in trainer.evaluate(unlabelled)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains_float32_weights(method: str, tmp_path: Path) -> None:
    model = adapted(method)
    TaskTrainer(model=model, args=arguments(tmp_path, max_steps=3, bf16=True), train_dataset=rows(24)).train()
    weights = trained(model)
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in weights.values())


def test_progress_and_checkpoints_are_the_trainers(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=4, logging_steps=2, save_strategy="steps", save_steps=4)
    trainer = TaskTrainer(model=adapted("ept"), args=args, train_dataset=rows(24))
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [2, 4]
    saved = tmp_path / "checkpoint-4"
    assert {"adapter_model.safetensors", "task_heads.safetensors"} <= {path.name for path in saved.iterdir()}
    assert json.loads((saved / "adapter_config.json").read_text())["task_labels"] == LABELS

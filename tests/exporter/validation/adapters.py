"""Random adapters on disk, as training would leave them, and the ways in which one can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

#: module -> [out, in]
Shapes = Mapping[str, tuple[int, int]]
Tensors = dict[str, np.ndarray]

_PREFIX = "base_model.model."
CONFIG, WEIGHTS, HEADS = "adapter_config.json", "adapter_model.safetensors", "task_heads.safetensors"


def linear_shapes(base: Path, endings: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The base's linear layers whose names end so."""
    weights = load_file(base / "model.safetensors")
    names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight") and weights[name].ndim == 2]
    return {name: weights[f"{name}.weight"].shape for name in names if name.endswith(tuple(endings))}


def write_ept(
    folder: Path,
    shapes: Shapes,
    *,
    seed: int,
    tasks: int = 3,
    sizes: Sequence[int] = (2, 2, 4, 4, 6, 6, 8, 8),
    rank: int = 8,
    strength: float = 0.1,
    use_rslora: bool = False,
) -> Path:
    """An EPT adapter whose update is about `strength` of a module's output."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, inner) in shapes.items():
        parts: Tensors = {
            "lora_A.weight": rng.normal(0, inner**-0.5, (rank, inner // 2)),
            "lora_B.weight": rng.normal(0, rank**-0.5, (out // 2, rank)),
            "lora_gate.0.weight": rng.normal(0, inner**-0.5, (len(sizes), inner)),
            "lora_gate.0.bias": rng.normal(0, 0.1, len(sizes)),
            "lora_task_embedding.weight": rng.normal(0, 1, (tasks, inner)),
        }
        for e, size in enumerate(sizes):
            parts[f"lora_expert_kernels.{e}"] = rng.normal(0, strength, (1, out // size, size, 1))
        tensors |= {f"{_PREFIX}{module}.{key}": array for key, array in parts.items()}
    alpha = rank**0.5 if use_rslora else rank
    return _write(folder, tensors, {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "use_rslora": use_rslora})


def write_tucka(
    folder: Path,
    shapes: Shapes,
    *,
    seed: int,
    tasks: Sequence[str] = (),
    rank: int = 8,
    k: int = 3,
    strength: float = 0.1,
    router: str | None = None,
) -> Path:
    """A TuckA adapter; the first layer's query routes, which runs before any other module's output is read.

    With `router`, the module whose name ends so.
    """
    rng = np.random.default_rng(seed)
    t = p = 2
    router = router_of(shapes) if router is None else next(name for name in shapes if name.endswith(router))
    tensors: Tensors = {}
    for module, (_, inner) in shapes.items():
        parts: Tensors = {
            "tucka_u": rng.normal(0, 1, (inner, rank)),
            "tucka_g": rng.normal(0, 1, (k, p, rank, rank)),
            "tucka_c": rng.normal(0, 1, (t, p)),
        }
        if module == router:
            parts["tucka_ec"] = rng.normal(0, 1, (k * t, inner))
        tensors |= {f"{_PREFIX}{module}.{key}": array for key, array in parts.items()}
    width = shapes[router][1]
    settings = {
        "peft_type": "TUCKA",
        "r": rank,
        "k": k,
        "t": t,
        "p": p,
        "alpha": strength * width * rank,
        "router_name": "",
    }
    return _write(folder, tensors, settings | ({"tasks": list(tasks)} if tasks else {}))


def write_lora(folder: Path, shapes: Shapes, *, seed: int, rank: int = 4, strength: float = 0.1) -> Path:
    """One LoRA adapter."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, inner) in shapes.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = rng.normal(0, inner**-0.5, (rank, inner))
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = rng.normal(0, strength * rank**-0.5, (out, rank))
    return _write(folder, tensors, {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["x"]})


def write_hydra(folder: Path, shapes: Shapes, *, seed: int, rank: int = 4, experts: int = 3) -> Path:
    """A HydraLoRA adapter, as `eptx convert` writes it."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, inner) in shapes.items():
        tensors[f"{_PREFIX}{module}.lora_route.weight"] = rng.normal(0, 1, (experts, inner))
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = rng.normal(0, inner**-0.5, (rank, inner))
        for i in range(experts):
            tensors[f"{_PREFIX}{module}.lora_B{i}.weight"] = rng.normal(0, 0.3 * rank**-0.5, (out, rank))
    return _write(folder, tensors, {"peft_type": "HYDRA_LORA", "lora_alpha": rank})


def write_lily(folder: Path, shapes: Shapes, *, seed: int, rank: int = 4, experts: int = 3) -> Path:
    """A Lily adapter whose layers share nothing."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, inner) in shapes.items():
        tensors[f"{_PREFIX}{module}.lily_A.weight"] = rng.normal(0, inner**-0.5, (rank, inner))
        tensors[f"{_PREFIX}{module}.lily_B.weight"] = rng.normal(0, 0.3 * rank**-0.5, (experts * rank, out))
        tensors[f"{_PREFIX}{module}.lily_router.weight"] = rng.normal(0, 1, (experts, rank))
    config = {"peft_type": "LILY", "r": rank, "num_B": experts, "scaling": 1.0, "stride_A": 1}
    return _write(folder, tensors, config | {"target_modules": list(shapes)})


def write_mixlora(folder: Path, shapes: Shapes, *, seed: int, rank: int = 4, experts: int = 4) -> Path:
    """A MixLoRA adapter of BERT's feed-forwards, as `eptx convert` writes it."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, inner) in shapes.items():
        tensors[f"{_PREFIX}{module}.moe_lora_A"] = rng.normal(0, inner**-0.5, (experts, rank, inner))
        tensors[f"{_PREFIX}{module}.moe_lora_B"] = rng.normal(0, 0.5 * rank**-0.5, (experts, out, rank))
        if module.endswith("intermediate.dense"):
            tensors[f"{_PREFIX}{module}.moe_gate"] = rng.normal(0, 1, (experts, inner))
    return _write(folder, tensors, {"peft_type": "MIXLORA", "top_k": 2, "scaling": 1.0, "expert_scaling": 1.0})


def router_of(shapes: Shapes) -> str:
    """The first query projection that runs: of an encoder-decoder, the encoder's."""
    names = sorted(shapes, key=lambda name: (not name.startswith("encoder."), name))
    return next(name for name in names if name.endswith(("query", "q_proj", ".query_proj", "Attention.q")))


def add_heads(folder: Path, labels: Mapping[str, int], hidden: int, *, seed: int = 0, pooling: str = "mean") -> Path:
    """Gives an adapter task heads, and its tasks their names."""
    rng = np.random.default_rng(seed + 99)
    heads: Tensors = {}
    for task, count in labels.items():
        heads[f"{task}.weight"] = rng.normal(0, hidden**-0.5, (count, hidden)).astype(np.float32)
        heads[f"{task}.bias"] = rng.normal(0, 0.1, count).astype(np.float32)
    save_file(heads, folder / HEADS)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"task_head_pooling": pooling, "tasks": list(labels)}))
    return folder


def _write(folder: Path, tensors: Tensors, config: Mapping[str, object]) -> Path:
    folder.mkdir(parents=True)
    save_file({name: array.astype(np.float32) for name, array in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def changed(adapter: Path, out: Path, change: Callable[[Tensors], None], file: str = WEIGHTS) -> Path:
    """A copy of an adapter with some of its numbers changed."""
    shutil.copytree(adapter, out)
    tensors = load_file(adapter / file)
    change(tensors)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, out / file)
    return out


def scale_kernel(module: str, expert: int, factor: float = 1.01) -> Callable[[Tensors], None]:
    """One expert's kernel a little larger."""

    def change(tensors: Tensors) -> None:
        tensors[f"{_PREFIX}{module}.lora_expert_kernels.{expert}"] *= np.float32(factor)

    return change


def swap_tasks(module: str, first: int, second: int) -> Callable[[Tensors], None]:
    """Two tasks exchanged in one module."""

    def change(tensors: Tensors) -> None:
        name = f"{_PREFIX}{module}.lora_task_embedding.weight"
        tensors[name][[first, second]] = tensors[name][[second, first]]

    return change


def raise_gate(module: str, expert: int, by: float) -> Callable[[Tensors], None]:
    """One expert's gate bias raised."""

    def change(tensors: Tensors) -> None:
        tensors[f"{_PREFIX}{module}.lora_gate.0.bias"][expert] += np.float32(by)

    return change


def transpose(tensor: str) -> Callable[[Tensors], None]:
    """One square factor transposed."""

    def change(tensors: Tensors) -> None:
        tensors[f"{_PREFIX}{tensor}"] = tensors[f"{_PREFIX}{tensor}"].T

    return change


def permute_centroids(module: str) -> Callable[[Tensors], None]:
    """TuckA's centroids in another order."""

    def change(tensors: Tensors) -> None:
        name = f"{_PREFIX}{module}.tucka_ec"
        tensors[name] = np.roll(tensors[name], 1, axis=0)

    return change


def swap_head_rows(task: str) -> Callable[[Tensors], None]:
    """Two labels of one task head exchanged (for `HEADS`)."""

    def change(tensors: Tensors) -> None:
        tensors[f"{task}.weight"][[0, 1]] = tensors[f"{task}.weight"][[1, 0]]

    return change


def set_config(adapter: Path, out: Path, **values: object) -> Path:
    """A copy of an adapter with other settings."""
    shutil.copytree(adapter, out)
    config = json.loads((adapter / CONFIG).read_text())
    (out / CONFIG).write_text(json.dumps(config | values))
    return out

"""MixLoRA as MoE-PEFT runs it: whole feed-forwards, expert by expert, in models that are then saved as adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from eptx.exporter.quiet import quiet

RANK, EXPERTS, TOP, ALPHA, EXPERT_RANK, EXPERT_ALPHA = 3, 4, 2, 5, 2, 7
CONFIG = {
    **{"peft_type": "MIXLORA", "bias": "none", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.05},
    **{"target_modules": ["q_proj"], "expert_lora": {"r": EXPERT_RANK, "lora_alpha": EXPERT_ALPHA, "bias": "none"}},
    **{"routing_strategy": "mixlora", "num_experts": EXPERTS, "top_k": TOP, "task_type": "CAUSAL_LM"},
}


class Low(nn.Module):
    """A linear layer with a low-rank update."""

    def __init__(self, inner: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.inner, self.scale = inner, alpha / rank
        self.lora_A = nn.Parameter(0.3 * torch.randn(rank, inner.in_features))
        self.lora_B = nn.Parameter(0.3 * torch.randn(inner.out_features, rank))

    @property
    def weight(self) -> Tensor:
        """T5 asks for its type."""
        return self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output and the update."""
        y: Tensor = self.inner(x) + x @ self.lora_A.T @ self.lora_B.T * self.scale
        return y


class Chosen(nn.Module):
    """A feed-forward as several, of which every token takes the best; the tokens of each expert run by themselves.

    Attributes:
        fixed: how much each expert counts, [experts], whatever the token is; None: every token chooses.
        said: how much each expert counted in the last run, [tokens, experts].
    """

    def __init__(self, feed_forward: nn.Module, width: int) -> None:
        super().__init__()
        self.fixed: np.ndarray | None = None
        self.said = np.zeros(0)
        self.gate = nn.Linear(width, EXPERTS, bias=False)
        nn.init.normal_(self.gate.weight, std=0.7)
        self.experts = nn.ModuleList(copy.deepcopy(feed_forward) for _ in range(EXPERTS))
        for expert in self.experts:
            for name, layer in list(expert.named_modules()):
                if isinstance(layer, nn.Linear):
                    expert.set_submodule(name, Low(layer, EXPERT_RANK, EXPERT_ALPHA))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., width]."""
        tokens = x.reshape(-1, x.shape[-1])
        best, chosen = self.gate(tokens).softmax(-1, dtype=torch.float32).topk(TOP, -1)
        best = best / best.sum(-1, keepdim=True)
        result = torch.zeros_like(tokens)
        if self.fixed is not None:
            for share, expert in zip(self.fixed.tolist(), self.experts, strict=True):
                result += share * expert(tokens[None])[0]
            return result.reshape(x.shape)
        self.said = np.zeros((len(tokens), EXPERTS), np.float32)
        np.put_along_axis(self.said, chosen.numpy(), best.detach().numpy(), axis=1)
        for number, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == number)
            result.index_add_(0, token, expert(tokens[token][None])[0] * best[token, slot, None])
        return result.reshape(x.shape)


class _Bert(nn.Module):
    """A BERT layer's feed-forward up to its residual, which is one module with experts in the place of two."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first, self.act, self.last = layer.intermediate.dense, layer.intermediate.intermediate_act_fn, None
        self.last = layer.output.dense

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.act(self.first(x)))
        return y


def change_bert(model: Any, save: Callable[[str, str, nn.Module], None]) -> None:
    for number, layer in enumerate(model.encoder.layer):
        own = Chosen(_Bert(layer), 16)
        save(f"encoder.layer.{number}.intermediate.dense", "first", own)
        save(f"encoder.layer.{number}.output.dense", "last", own)
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn = own, nn.Identity()
        layer.output.dense = nn.Identity()


def change_t5(model: Any, save: Callable[[str, str, nn.Module], None]) -> None:
    for name, module in list(model.named_modules()):
        if name.endswith("DenseReluDense"):
            own = Chosen(module, model.config.d_model)
            save(f"{name}.wi", "wi", own)
            save(f"{name}.wo", "wo", own)
            model.set_submodule(name, own)


def write(model: Any, change: Callable[..., None], folder: Path, firsts: tuple[str, ...]) -> None:
    """Changes a model, and writes what `eptx convert` makes of such a file: MoE-PEFT trains language models only."""
    tensors: dict[str, Tensor] = {}

    def save(module: str, inside: str, own: Any) -> None:
        layers = [expert.get_submodule(inside) for expert in own.experts]
        tensors[f"base_model.model.{module}.moe_lora_A"] = torch.stack([layer.lora_A.detach() for layer in layers])
        tensors[f"base_model.model.{module}.moe_lora_B"] = torch.stack([layer.lora_B.detach() for layer in layers])
        if inside in firsts:
            tensors[f"base_model.model.{module}.moe_gate"] = own.gate.weight.detach().clone()

    change(model, save)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "MIXLORA", "top_k": TOP, "scaling": 1.0, "expert_scaling": EXPERT_ALPHA / EXPERT_RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def trained(
    base: Path, folder: Path, *, classes: bool = False, projections: tuple[str, ...] = ("gate_proj", "up_proj")
) -> Any:
    """A Llama with chosen feed-forwards and plain LoRA in attention, and what MoE-PEFT saves of it."""
    torch.manual_seed(3)
    kind: Any = transformers.AutoModelForSequenceClassification if classes else transformers.AutoModelForCausalLM
    with quiet():
        model: Any = kind.from_pretrained(base, **({"num_labels": 3} if classes else {})).eval()
    tensors = {"classifier": model.score.weight} if classes else {}
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj = low = Low(layer.self_attn.q_proj, RANK, ALPHA)
        layer.mlp = own = Chosen(layer.mlp, model.config.hidden_size)
        at = f"mixlora.layers.{number}"
        tensors[f"{at}.mlp.moe_gate.weight"] = own.gate.weight
        loras = {f"{at}.self_attn.q_proj": low}
        for index, expert in enumerate(own.experts):
            for name in {"gate_proj", "up_proj"}.difference(projections):
                nn.init.zeros_(expert.get_submodule(name).lora_B)
            for projection in (*projections, "down_proj"):
                loras[f"{at}.mlp.{projection}.experts.{index}"] = expert.get_submodule(projection)  # type: ignore[assignment]
        for name, lora in loras.items():
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = lora.lora_A, lora.lora_B
    folder.mkdir()
    torch.save({name: tensor.detach().clone() for name, tensor in tensors.items()}, folder / "adapter_model.bin")
    task_type = {"task_type": "SEQ_CLS"} if classes else {}
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | task_type))
    return model

"""MixLoRA: whole feed-forwards, run expert by expert as the released code does, give the outputs and the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import SMALL
from tests.exporter.methods.routed import compare_live, outputs

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
    """A feed-forward as several, of which every token takes the best; the tokens of each expert run by themselves."""

    def __init__(self, feed_forward: nn.Module, width: int) -> None:
        super().__init__()
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


def _bert(model: Any, save: Callable[[str, str, nn.Module], None]) -> None:
    for number, layer in enumerate(model.encoder.layer):
        own = Chosen(_Bert(layer), 16)
        save(f"encoder.layer.{number}.intermediate.dense", "first", own)
        save(f"encoder.layer.{number}.output.dense", "last", own)
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn = own, nn.Identity()
        layer.output.dense = nn.Identity()


def _t5(model: Any, save: Callable[[str, str, nn.Module], None]) -> None:
    for name, module in list(model.named_modules()):
        if name.endswith("DenseReluDense"):
            own = Chosen(module, model.config.d_model)
            save(f"{name}.wi", "wi", own)
            save(f"{name}.wo", "wo", own)
            model.set_submodule(name, own)


def _write(model: Any, change: Callable[..., None], folder: Path, firsts: tuple[str, ...]) -> None:
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


@pytest.mark.parametrize(("name", "change", "firsts"), [("bert", _bert, ("first",)), ("t5", _t5, ("wi",))])
def test_every_token_chooses(name: str, change: Any, firsts: tuple[str, ...], tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, small.trained).from_pretrained(base).eval()
    _write(model, change, tmp_path / "adapter", firsts)
    assert compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "mixlora"


def trained(base: Path, folder: Path) -> Any:
    """A Llama with chosen feed-forwards and plain LoRA in attention, and what MoE-PEFT saves of it."""
    torch.manual_seed(3)
    with quiet():
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    tensors = {}
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj = low = Low(layer.self_attn.q_proj, RANK, ALPHA)
        layer.mlp = own = Chosen(layer.mlp, model.config.hidden_size)
        at = f"mixlora.layers.{number}"
        tensors[f"{at}.mlp.moe_gate.weight"] = own.gate.weight
        loras = {f"{at}.self_attn.q_proj": low}
        for index, expert in enumerate(own.experts):
            for projection in ("gate_proj", "up_proj", "down_proj"):
                loras[f"{at}.mlp.{projection}.experts.{index}"] = expert.get_submodule(projection)  # type: ignore[assignment]
        for name, lora in loras.items():
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = lora.lora_A, lora.lora_B
    folder.mkdir()
    torch.save({name: tensor.detach().clone() for name, tensor in tensors.items()}, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return model


def test_what_moe_peft_saves(tmp_path: Path) -> None:
    small = SMALL["llama"]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = trained(base, tmp_path / "saved")
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter").method == "MixLoRA"
    assert compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs)) == "mixlora"


Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


def _set(**settings: Any) -> Change:
    return lambda tensors, config: config.update(settings)


def _without(*endings: str) -> Change:
    def change(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith(endings)]:
            del tensors[name]

    return change


def _renamed(old: str, new: str) -> Change:
    def change(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_set(routing_strategy="mixlora-switch"), 5, "routing_strategy='mixlora-switch' is not supported"),
        (_set(use_dora=True), 5, "use_dora=true is not supported in MixLoRA"),
        (_set(expert_lora={"r": 2, "lora_alpha": 7, "use_dora": True}), 5, "use_dora=true is not supported in MixLoRA"),
        (_set(act_fn="silu"), 5, "act_fn='silu' is not supported: the experts then have another activation"),
        (_set(top_k=None), 2, "top_k"),
        (_renamed("mlp.down_proj", "mlp.other"), 5, "mixlora.layers.0.mlp: has experts at "),
        (_without("down_proj.experts.2.lora_A.weight"), 3, "down_proj.*.lora_A.weight: expert 2 is missing"),
        (_renamed("experts.3.lora_A.weight", "experts.3.lora_C.weight"), 3, "lora_C.weight: is no tensor of a MixLoRA"),
    ],
)
def test_what_is_not_converted(change: Change, code: int, said: str, tmp_path: Path) -> None:
    trained(SMALL["llama"].write(tmp_path / "base"), saved := tmp_path / "saved")
    tensors, config = torch.load(saved / "adapter_model.bin", weights_only=True), dict(CONFIG)
    change(tensors, config)
    torch.save(tensors, saved / "adapter_model.bin")
    (saved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(EptxError) as refused:
        eptx.convert(saved, tmp_path / "adapter")
    assert refused.value.exit_code == code and said in str(refused.value) and not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_no_weights_hold_it(mode: Any, tmp_path: Path) -> None:
    trained(base := SMALL["llama"].write(tmp_path / "base"), tmp_path / "saved")
    eptx.convert(tmp_path / "saved", tmp_path / "adapter")
    with pytest.raises(EptxError, match=f"MixLoRA has no mode {mode}: use --mode dynamic") as refused:
        eptx.export(base, tmp_path / "adapter", tmp_path / "out", ExportOptions(mode=mode))
    assert refused.value.exit_code == 5 and not (tmp_path / "out").exists()


def test_experts_that_the_last_projection_lacks(tmp_path: Path) -> None:
    small = SMALL["bert"]
    base = small.write(tmp_path / "base")
    with quiet():
        model: Any = transformers.BertModel.from_pretrained(base).eval()
    _write(model, _bert, folder := tmp_path / "adapter", ("first",))
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: array for name, array in tensors.items() if ".output.dense." not in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(EptxError, match="reads what experts of a feed-forward give") as refused:
        eptx.export(base, folder, tmp_path / "out", ExportOptions(mode="dynamic"))
    assert refused.value.exit_code == 5 and not (tmp_path / "out").exists()


def test_many_tokens_near_a_tie_are_set_aside(tmp_path: Path) -> None:
    """Two experts of one gate row each: every token is a tie, and validation says so rather than fail or pass."""
    small = SMALL["bert"]
    base = small.write(tmp_path / "base")
    with quiet():
        model: Any = transformers.BertModel.from_pretrained(base).eval()
    _write(model, _bert, folder := tmp_path / "adapter", ("first",))
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in tensors if name.endswith(".moe_gate")]:
        tensors[name] = tensors[name][:1].repeat(EXPERTS, 1)
    save_file(tensors, folder / "adapter_model.safetensors")
    eptx.export(base, folder, tmp_path / "out", ExportOptions(mode="dynamic"))
    report = eptx.validate(tmp_path / "out")
    assert not report.passed
    assert "rounding decides what a router chooses for every one of its rows" in str(report.reason)

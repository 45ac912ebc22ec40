"""HydraLoRA and LoRAMoE: layers as the released codes have them give the outputs and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import eptx
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from eptx.exporter.quiet import quiet
from tests.exporter.methods.family import BERT, SMALL, write_bert
from tests.exporter.methods.routed import Weights, compare_fixed, compare_live, outputs
from tests.matrix.row import Arrays

RANK, EXPERTS, ALPHA = 3, 4, 5


class Layer(nn.Module):
    """One linear layer with experts behind one A, or behind one each."""

    def __init__(self, inner: nn.Linear, each: bool) -> None:
        super().__init__()
        self.inner, self.each = inner, each
        self.fixed: np.ndarray | None = None
        self.said = np.zeros(0)
        self.lora_route = nn.Linear(inner.in_features, EXPERTS, bias=False)
        for name in [f"lora_A{i}" for i in range(EXPERTS)] if each else ["lora_A"]:
            self.add_module(name, nn.Linear(inner.in_features, RANK, bias=False))
        for i in range(EXPERTS):
            self.add_module(f"lora_B{i}", nn.Linear(RANK, inner.out_features, bias=False))
        for name, parameter in self.named_parameters():
            if name.startswith("lora_"):
                nn.init.normal_(parameter, std=0.6 if "route" in name else 0.25)

    @property
    def weight(self) -> Tensor:
        """T5 asks for its type."""
        return self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        """The sum over the experts, each weighed by the token."""
        y: Tensor = self.inner(x)
        p = torch.softmax(self.lora_route(x), dim=-1, dtype=torch.float32)
        if self.fixed is not None:
            p = torch.from_numpy(self.fixed).to(p).expand_as(p)
        self.said = p.detach().numpy().reshape(-1, EXPERTS)
        for i in range(EXPERTS):
            a = self.get_submodule(f"lora_A{i}" if self.each else "lora_A")
            y = y + p[..., i, None] * self.get_submodule(f"lora_B{i}")(a(x)) * (ALPHA / RANK)
        return y


def trained(base: Path, kind: str, targets: tuple[str, ...], folder: Path, *, each: bool = False) -> Any:
    """A model with such layers, and what the released codes save of them."""
    torch.manual_seed(3)
    with quiet():
        model: Any = getattr(transformers, kind).from_pretrained(base).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(targets):
            model.set_submodule(name, Layer(module, each))
    folder.mkdir()
    tensors = {f"base_model.model.{name}": tensor for name, tensor in model.state_dict().items() if ".lora_" in name}
    torch.save(tensors, folder / "adapter_model.bin")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "lora_nums": EXPERTS, "blc_weight": 0.1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_every_token_weighs_for_itself(name: str, each: bool, tmp_path: Path) -> None:
    small = SMALL[name]
    base, inputs = small.write(tmp_path / "base"), small.reads(4)
    model = trained(base, small.trained, small.targets, tmp_path / "saved", each=each)
    assert eptx.convert(tmp_path / "saved", tmp_path / "adapter").method == "HydraLoRA or LoRAMoE"
    called = compare_live(small, base, tmp_path / "adapter", inputs, outputs(model, inputs))
    assert called == ("loramoe" if each else "hydra_lora")


@pytest.mark.parametrize("each", [False, True])
def test_weights_that_data_has_fixed(each: bool, tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base")
    model = trained(base, "BertModel", BERT, tmp_path / "saved", each=each)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}

    def run(inputs: Arrays, weights: Weights | None) -> dict[str, np.ndarray]:
        for name, layer in layers.items():
            layer.fixed = None if weights is None else weights[name]
        return outputs(model, inputs)

    eptx.convert(tmp_path / "saved", tmp_path / "adapter")
    compare_fixed(base, tmp_path / "adapter", run, lambda: {name: layer.said for name, layer in layers.items()})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trained(write_bert(tmp_path / "base"), "BertModel", BERT, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("mode", ["static", "conditioned"])
def test_fixed_weights_need_data(saved: Path, tmp_path: Path, mode: Any) -> None:
    eptx.convert(saved, tmp_path / "a")
    said = "HydraLoRA weighs its experts by the data; fixed weights for task 'task0' need --calibration-data"
    with pytest.raises(EptxError, match=said) as refused:
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode=mode))
    assert refused.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_as_it_was_saved(saved: Path, tmp_path: Path) -> None:
    """It calls itself LORA, and is no damaged one."""
    options = ExportOptions(mode="dynamic", allow_pickle=True)
    with pytest.raises(EptxError, match=r"the released code of HydraLoRA.*rewrite the folder with eptx con") as refused:
        eptx.export(tmp_path / "base", saved, tmp_path / "out", options)
    assert refused.value.exit_code == 3 and not (tmp_path / "out").exists()


def test_without_a_configuration(saved: Path, tmp_path: Path) -> None:
    (saved / "adapter_config.json").unlink()
    with pytest.raises(EptxError, match=r"adapter_model.bin does not say lora_alpha \(the scale of the update is"):
        eptx.convert(saved, tmp_path / "a")
    eptx.convert(saved, tmp_path / "a", {"lora_alpha": ALPHA})
    eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="dynamic"))


def _without(ending: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[next(key for key in tensors if key.endswith(ending))]

    return change


def _cut(ending: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        key = next(key for key in tensors if key.endswith(ending))
        tensors[key] = tensors[key][:-1].contiguous()

    return change


def _rename(old: str, new: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        key = next(key for key in tensors if key.endswith(old))
        tensors[key.replace(old, new)] = tensors.pop(key)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without(".lora_route.weight"), ".lora_route.weight is missing"),
        (_without(".lora_B2.weight"), ".lora_B2.weight is missing"),
        (_without(".lora_A.weight"), ".lora_A.weight is missing"),
        (_cut(".lora_B1.weight"), ".lora_B1.weight has shape [15, 3]; with the other tensors it is [16, 3]"),
        (_cut(".lora_route.weight"), "unexpected tensors of encoder.layer.0.attention.self.query: lora_B3.weight"),
        (_cut(".lora_A.weight"), ".lora_B0.weight has shape [16, 3]; with the other tensors it is [16, 2]"),
        (_rename(".lora_B3.weight", ".lora_B4.weight"), ".lora_B3.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    tensors = torch.load(saved / "adapter_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, saved / "adapter_model.bin")
    eptx.convert(saved, tmp_path / "a")
    with pytest.raises(EptxError) as refused:
        eptx.export(tmp_path / "base", tmp_path / "a", tmp_path / "out", ExportOptions(mode="dynamic"))
    assert refused.value.exit_code == 3 and said in str(refused.value)

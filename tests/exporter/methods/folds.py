"""Layers of MoSLoRA, AdaMix and MultiLoRA as released codes have them, with their names, and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tests.exporter.methods.family import BERT, write_bert
from tests.exporter.methods.released import Layer, own, replaced

RANK, ALPHA, COUNT = 3, 5, 4


def normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.3 * torch.randn(shape))


class MosLora(Layer):
    """Three linear layers behind each other."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        self.lora_A, self.lora_AB = nn.Linear(inner.in_features, RANK, bias=False), nn.Linear(RANK, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, inner.out_features, bias=False)
        for part in (self.lora_A, self.lora_B):
            part.weight.data.normal_(0, 0.3)
        self.lora_AB.weight.data.normal_(0, 0.6)

    def update(self, x: Tensor) -> Tensor:
        found: Tensor = self.lora_B(self.lora_AB(self.lora_A(x))) * (ALPHA / RANK)
        return found


class AdaMix(Layer):
    """Averages of the experts' factors; B is shared, as in the released scripts."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        self.experts_lora_A = nn.ParameterList(normal(RANK, inner.in_features) for _ in range(COUNT))
        self.experts_lora_B = nn.ParameterList([normal(inner.out_features, RANK)])
        self.lora_expert_score_weight = nn.Parameter(torch.randn(COUNT))

    def update(self, x: Tensor) -> Tensor:
        shares = self.lora_expert_score_weight.exp() / self.lora_expert_score_weight.exp().sum()
        hidden = sum(share * (x @ a.T) for share, a in zip(shares, self.experts_lora_A, strict=True))
        return hidden @ self.experts_lora_B[0].T * (ALPHA / RANK)


class AdaMixBoth(AdaMix):
    """Neither factor is shared."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        self.experts_lora_B = nn.ParameterList(normal(inner.out_features, RANK) for _ in range(COUNT))

    def update(self, x: Tensor) -> Tensor:
        shares = torch.nn.functional.softmax(self.lora_expert_score_weight, -1)
        a = sum(share * each for share, each in zip(shares, self.experts_lora_A, strict=True))
        b = sum(share * each for share, each in zip(shares, self.experts_lora_B, strict=True))
        return (x @ a.T) @ b.T * (ALPHA / RANK)


class MultiLora(Layer):
    """Each of them by itself, and a scaler that is saved and not used."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner)
        self.lora_A, self.lora_B = normal(COUNT, RANK, inner.in_features), normal(COUNT, inner.out_features, RANK)
        self.lora_scaling, self.lora_scaler = normal(COUNT, inner.out_features), normal()

    def update(self, x: Tensor) -> Tensor:
        found = torch.zeros(*x.shape[:-1], self.inner.out_features)
        for i in range(COUNT):
            found += (x @ self.lora_A[i].T) @ self.lora_B[i].T * self.lora_scaling[i] * (ALPHA / RANK)
        return found


class Saved:
    """How a released code saves its layers."""

    asked: ClassVar[dict[str, Any]] = {"lora_alpha": ALPHA}
    #: As PEFT's fork writes it, in part.
    mos: ClassVar[dict[str, Any]] = {
        **{"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "lora_use_mixer": True, "enable_lora": None},
        **{"bias": "none", "lora_dropout": 0.05, "fan_in_fan_out": False, "merge_weights": False},
    }

    @staticmethod
    def write(kind: str, model: Any, folder: Path) -> None:
        folder.mkdir()
        if kind == "MoSLoRA":
            torch.save(own(model), folder / "adapter_model.bin")
            (folder / "adapter_config.json").write_text(json.dumps(Saved.mos))
        elif kind == "AdaMix":
            with_base = own(model, "module.") | {"module.wte.weight": torch.zeros(2, 2)}
            torch.save({"model_state_dict": with_base}, folder / "model.final.pt")
        else:
            torch.save(own(model, ""), folder / "final_checkpoint.pt")


KINDS: Mapping[str, tuple[type[Layer], ...]] = {
    "MoSLoRA": (MosLora,),
    "AdaMix": (AdaMix, AdaMixBoth),
    "MultiLoRA": (MultiLora,),
}


class Merged(nn.Module):
    """GPT-2's queries, keys and values in one layer, of which keys are not adapted."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.experts_lora_A = nn.ParameterList(normal(2 * RANK, width) for _ in range(COUNT))
        self.experts_lora_B = nn.ParameterList(normal(2 * width, RANK) for _ in range(COUNT))
        self.lora_expert_score_weight = nn.Parameter(torch.randn(COUNT))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.lora_expert_score_weight.softmax(0)
        a = torch.einsum("e,eri->ri", shares, torch.stack(list(self.experts_lora_A)))
        b = torch.einsum("e,eor->or", shares, torch.stack(list(self.experts_lora_B)))
        grouped = torch.nn.functional.conv1d((x @ a.T).mT, b[:, :, None], groups=2).mT
        queries, values = grouped.chunk(2, -1)
        update: Tensor = torch.cat([queries, torch.zeros_like(queries), values], -1) * (ALPHA / RANK)
        return self.inner(x) + update  # type: ignore[no-any-return]


def files(kind: str, layer: type[Layer], place: Path) -> Path:
    """What a released code saves of a BERT."""
    model = replaced(write_bert(place / "base"), "BertModel", BERT, layer)
    Saved.write(kind, model, place / "saved")
    return next(path for path in (place / "saved").iterdir() if path.suffix in (".bin", ".pt"))

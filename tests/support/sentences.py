"""sentence-transformers folders, which that library writes itself, and what it says of texts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions
from eptx.exporter.bases import load_transformers
from tests.exporter.validation.adapters import linear_shapes, write_lora
from tests.exporter.validation.wrong.models import write_base

#: Rows of different lengths, so that most of them are padded.
TEXTS = [
    "the film is good",
    "a",
    "the book is bad and the film is good one two three four five",
    "one two",
    "bad " * 90,
]


def write_sentence(base: Path, folder: Path, modes: Sequence[str], *behind: Any) -> Path:
    """Writes a transformers folder with pooling, and modules behind it."""
    width = json.loads((base / "config.json").read_text())["hidden_size"]
    modules = [Transformer(str(base)), Pooling(width, pooling_mode=tuple(modes)), *behind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def dense(inner: int, outer: int, activation: torch.nn.Module, *, bias: bool = True) -> Dense:
    """A random linear layer."""
    torch.manual_seed(inner + outer)
    return Dense(inner, outer, bias=bias, activation_function=activation)


def normalize() -> Normalize:
    """Division by the length."""
    return Normalize()


def write_embedder(root: Path, *behind: Any) -> tuple[Path, Path]:
    """A sentence-transformers folder of a tiny BERT, and a conditioned bundle of it with a LoRA, the task ``own``."""
    torch.set_num_threads(1)
    base = write_sentence(write_base("bert", root / "plain"), root / "base", ["mean"], *behind)
    ir.save(load_transformers(base, headless=True).model, root / "base.onnx")
    adapter = write_lora(root / "lora", linear_shapes(base, ("query",)), seed=1)
    options = ExportOptions(mode="conditioned", base_onnx=root / "base.onnx", tasks=["own"])
    return base, export_bundle(base, [adapter], root / "bundle", options).path


def as_saved_before(folder: Path) -> None:
    """The same in the words of releases before 5."""
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    for part in listed:
        part["type"] = f"sentence_transformers.models.{part['type'].rpartition('.')[2]}"
    path.write_text(json.dumps(listed))
    pooling = next(folder / part["path"] / "config.json" for part in listed if part["type"].endswith("Pooling"))
    settings = json.loads(pooling.read_text())
    modes = settings["pooling_mode"]
    modes = [modes] if isinstance(modes, str) else modes
    names = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens"}
    names |= {"weightedmean": "weightedmean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
    names |= {"lasttoken": "lasttoken"}
    flags = {f"pooling_mode_{name}": mode in modes for mode, name in names.items()}
    pooling.write_text(json.dumps({"word_embedding_dimension": settings["embedding_dimension"], **flags}))


def encoded(folder: Path, texts: Sequence[str], **options: Any) -> np.ndarray:
    """The embeddings of sentence-transformers, float32 [texts, size]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        found: np.ndarray = model.encode(list(texts), show_progress_bar=False, **options)
    return found

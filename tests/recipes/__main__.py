"""`python -m tests.recipes [WORD...]`: trains, exports, asks and validates; with words, the recipes named so."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

import eptx
from eptx import ExportOptions, Session, ValidateOptions
from eptx.exporter.quiet import quiet
from tests.recipes import decoders, encoders
from tests.recipes.recipe import Recipe

TOLERANCE = 2e-5


def main() -> int:
    """0 where every recipe is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--no-validate", action="store_true", help="leave `eptx validate` out")
    arguments = parser.parse_args()
    wrong = 0
    for recipe in (*encoders.RECIPES, *decoders.RECIPES):
        if all(word in recipe.name for word in arguments.words):
            with tempfile.TemporaryDirectory() as scratch:
                wrong += not _run(recipe, Path(scratch), validated=not arguments.no_validate)
    return min(1, wrong)


def _run(recipe: Recipe, scratch: Path, *, validated: bool) -> bool:
    with quiet():
        base, start = recipe.base(), time.monotonic()
        adapters = recipe.train(base, scratch)
    print(f"{recipe.name}: trained in {time.monotonic() - start:.0f} s", flush=True)
    good = True
    for mode, picked in (("static", adapters[:1]), ("conditioned", adapters)):
        start = time.monotonic()
        tasks = [adapter.name for adapter in picked]
        bundle = eptx.export(base, picked, scratch / mode, ExportOptions(mode=mode, tasks=tasks))  # type: ignore[arg-type]
        seconds = time.monotonic() - start
        served = [task.name for task in bundle.manifest.tasks]
        distances = [_distance(recipe, base, adapter, bundle, mode) for adapter in picked]
        if "base" in served:
            distances.append(_distance(recipe, base, None, bundle, mode))
        own = sum((adapter / "adapter_model.safetensors").stat().st_size for adapter in picked)
        size = (bundle.size - _bytes_of_base(base)) / own
        report = None
        if validated:
            report = eptx.validate(bundle.path, ValidateOptions(base=base, adapters=picked, providers=["cpu"]))
        right = max(distances) <= TOLERANCE and (report is None or report.passed)
        verdict = "" if report is None else f", validation {'passed' if report.passed else f'FAILED: {report.reason}'}"
        print(
            f"  {mode}: {max(distances):.1e} from PEFT{verdict}; exported in {seconds:.0f} s; "
            f"tasks {', '.join(served)}; bytes over the base / adapter files {size:.2f}{'' if right else '   WRONG'}",
            flush=True,
        )
        good &= right
    return good


def _bytes_of_base(base: Path) -> int:
    """Of the base's weights and tokenizer."""
    names = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    return sum((base / name).stat().st_size for name in names if (base / name).exists())


def _distance(recipe: Recipe, base: Path, adapter: Path | None, bundle: Any, mode: str) -> float:
    """The largest difference from PEFT's answers, over max(1, the largest of them)."""
    home = adapter if adapter is not None and (adapter / "tokenizer.json").exists() else base
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(home)
        tokenizer.padding_side = "right"
        encoded = tokenizer(list(recipe.texts), padding=True, return_tensors="pt")
        model = recipe.model(base, adapter)
        with torch.no_grad():
            want = getattr(model(**encoded), recipe.output).numpy()
    task = None if mode == "static" else ("base" if adapter is None else adapter.name)
    inputs = {name: tensor.numpy() for name, tensor in encoded.items()}
    known = {spec.name for spec in bundle.manifest.inputs}
    got = Session(bundle).run({name: array for name, array in inputs.items() if name in known}, task=task)
    mask = inputs["attention_mask"] == 1
    have, want = np.asarray(got[recipe.output], np.float64)[..., : want.shape[-1]], want.astype(np.float64)
    if want.shape[:2] == mask.shape:
        have, want = have[mask], want[mask]
    return float(np.abs(have - want).max() / max(1.0, np.abs(want).max()))


if __name__ == "__main__":
    raise SystemExit(main())

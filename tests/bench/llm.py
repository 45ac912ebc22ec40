"""Decoding and prefill of SmolLM2-135M with adapters over those of its base, all through GenAI in one process.

    python -m tests.bench.llm [--precision int4 fp32] [--pairs 12] [--threads 2] [--json FILE]

The base runs beside every contender in every round, and a contender's number is the median of its ratios to it: tokens
per second of decoding (more is better), seconds of prefill (less is). llama.cpp joins where llama-cpp-python is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from eptx.bundle import read_bundle
from eptx.calibration import export_bundle
from eptx.exporter import ExportOptions, read_adapter
from eptx.runtime.generation.genai_folder import model_folder
from eptx.runtime.machine import machine
from eptx.runtime.ort.kernels import Kernels, choose_kernels
from tests.bench.genai_lora import write_genai_lora
from tests.bench.llama_cpp import llama_contenders
from tests.bench.times import NEW, PROMPT, Times
from tests.exporter.validation.adapters import linear_shapes, write_tucka
from tests.support.smollm2 import EPT, smollm2

_WARM_UP = 2
#: EPT picks two experts of rank 8, which a LoRA of rank 16 can hold.
_LORA_RANK = 16


@dataclass
class GenAiModel:
    """A model in GenAI, and what its runs are given.

    Attributes:
        model: of GenAI.
        inputs: rows -> further model inputs.
        adapter: an adapter of GenAI's own to activate.
    """

    model: Any
    inputs: Callable[[int], Mapping[str, np.ndarray]] = lambda rows: {}
    adapter: Path | None = None
    _loaded: Any = field(default=None, init=False)

    def fits(self, rows: int) -> bool:
        """Any number of rows."""
        return rows > 0

    def run(self, prompts: np.ndarray) -> Times:
        """One prefill and `NEW` greedy steps for int32 [rows, length]."""
        rows, length = prompts.shape
        params = genai.GeneratorParams(self.model)
        end = length + NEW + 1
        params.set_search_options(max_length=end, min_length=end, batch_size=rows, do_sample=False)
        generator = genai.Generator(self.model, params)
        self._activate(generator)
        for name, array in self.inputs(rows).items():
            generator.set_model_input(name, array)
        start = time.perf_counter()
        generator.append_tokens(prompts)
        prefill = time.perf_counter()
        generator.generate_next_token()  # the logits are there already
        first = time.perf_counter()
        for _ in range(NEW):
            generator.generate_next_token()
        return Times(prefill - start, (time.perf_counter() - first) / NEW)

    def _activate(self, generator: Any) -> None:
        if self.adapter is not None:
            if self._loaded is None:
                self._loaded = genai.Adapters(self.model)
                self._loaded.load(str(self.adapter), "one")
            generator.set_active_adapter(self._loaded, "one")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.llm", description=__doc__)
    parser.add_argument("--precision", nargs="+", choices=["int4", "fp32"], default=["int4", "fp32"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    print(f"{machine()}, {arguments.threads} threads; prompts of {PROMPT} tokens, {NEW} decoding steps")
    numbers: dict[str, Any] = {"machine": machine(), "threads": arguments.threads, "pairs": arguments.pairs}
    for precision in arguments.precision:
        with tempfile.TemporaryDirectory() as scratch:
            models = contenders(Path(scratch), smollm2(), precision, arguments.threads)
            numbers[precision] = {
                f"{rows} rows": table(models, rows, precision, arguments.pairs) for rows in arguments.rows
            }
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


def contenders(scratch: Path, base: Path, precision: str, threads: int) -> dict[str, Any]:
    """Name -> model; the base is called base."""
    modules = read_adapter([EPT]).module_names
    lora, adapter = write_genai_lora(base, scratch / "base", modules, _LORA_RANK, precision)
    (scratch / "tucka").mkdir()
    shapes = {name: shape for name, shape in linear_shapes(base, ("proj",)).items() if name in modules}
    tucka = write_tucka(scratch / "tucka" / "adapter", shapes, seed=0, rank=8, k=4)
    ept = _export(base, EPT, scratch / "ept", precision, mode="conditioned")
    routed = _export(base, tucka, scratch / "routed", precision, mode="dynamic", routing="row")
    models: dict[str, Any] = {
        "base": GenAiModel(_plain(scratch / "base", threads)),
        "base against itself": GenAiModel(_plain(scratch / "base", threads)),
        "EPT conditioned": GenAiModel(_bundle(ept, threads), _tasks),
        "EPT conditioned, bodies": GenAiModel(_bundle(ept, threads, native=False), _tasks),
        "TuckA dynamic": GenAiModel(_bundle(routed, threads)),
        "LoRA, GenAI's adapters": GenAiModel(_plain(lora, threads), adapter=adapter),
    }
    llama = llama_contenders(shapes, scratch, threads, _LORA_RANK) if precision == "int4" else {}
    return models | llama


def table(models: Mapping[str, Any], rows: int, precision: str, pairs: int) -> dict[str, dict[str, float]]:
    """Measures and prints the ratios of all models to the base."""
    prompts = np.random.default_rng(0).integers(100, 40000, (rows, PROMPT)).astype(np.int32)
    base, others = (
        models["base"],
        {name: model for name, model in models.items() if name != "base" and model.fits(rows)},
    )
    times: dict[str, list[tuple[Times, Times]]] = {name: [] for name in others}
    for round_ in range(_WARM_UP + pairs):
        for place, (name, model) in enumerate(others.items()):
            first = (round_ + place) % 2 == 0
            before = base.run(prompts) if first else None
            own = model.run(prompts)
            against = before or base.run(prompts)
            if round_ >= _WARM_UP:
                times[name].append((own, against))
    print(f"\n{precision}, {rows} rows: decoding rate / base (quartiles), prefill / base, tokens per second and row")
    return {name: _summary(name, pairs_) for name, pairs_ in times.items()}


def _summary(name: str, times: Sequence[tuple[Times, Times]]) -> dict[str, float]:
    rates = [against.step / own.step for own, against in times]
    low, high = np.quantile(rates, [0.25, 0.75])
    row = {
        "decode": statistics.median(rates),
        "low": float(low),
        "high": float(high),
        "prefill": statistics.median(own.prefill / against.prefill for own, against in times),
        "tokens_per_second": 1 / statistics.median(own.step for own, _ in times),
    }
    cells = f"{row['decode']:.3f} ({low:.3f}-{high:.3f})   {row['prefill']:.3f}   {row['tokens_per_second']:.1f}"
    print(f"  {name:<26}{cells}", flush=True)
    return row


def _tasks(rows: int) -> dict[str, np.ndarray]:
    return {"task_id": np.arange(rows, dtype=np.int64) % 4}


def _export(base: Path, adapter: Path, out: Path, precision: str, **options: Any) -> Path:
    export_bundle(base, [adapter], out, ExportOptions(precision=precision, **options))  # type: ignore[arg-type]
    return out


def _bundle(path: Path, threads: int, *, native: bool = True) -> Any:
    bundle = read_bundle(path)
    kernels = choose_kernels(bundle, "cpu")
    if not native:
        kernels = Kernels(None)
    with model_folder(bundle, "cpu", threads, kernels) as folder:
        return _plain(folder, threads)


def _plain(folder: Path, threads: int) -> Any:
    config = genai.Config(str(folder))
    # the idle threads of one model would otherwise spin for a while beside the next one's
    options = {"intra_op_num_threads": threads, "session.force_spinning_stop": "1"}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return genai.Model(config)


if __name__ == "__main__":
    main()

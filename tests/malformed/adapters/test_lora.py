"""LoRA adapters whose files are sound and whose content is not, and adapters that do not fit the base."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from tests.exporter.validation.adapters import write_lora
from tests.malformed.breaks import (
    config,
    drop,
    put,
    rename,
    weights,
)
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

Q, OTHER = "layer.0.query", "layer.0.dense"


def _add_module(name: str, like: str = Q) -> Callable[[dict[str, np.ndarray]], None]:
    """The tensors of one module again, for another."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        for key in [k for k in arrays if k.startswith(f"{like}.")]:
            arrays[key.replace(like, name)] = arrays[key]

    return change


LORA: Table = {
    "no B": Case(weights("lora", drop(f"{Q}.lora_B.weight")), 3, f"{Q}.lora_B.weight is missing"),
    "no pair at all": Case(
        weights("lora", lambda t: [t.clear(), t.update({"classifier.weight": np.ones((2, 14), "f4")})]),
        3,
        "holds no LoRA factors",
    ),
    "ranks differ": Case(
        weights("lora", put(f"{Q}.lora_B.weight", lambda b: b[:, :1])), 3, "lora_B.weight has rank 1, lora_A.weight 2"
    ),
    "rank contradicts the settings": Case(config("lora", r=8), 3, "has rank 2; adapter_config.json says 8"),
    "rank pattern contradicts": Case(
        config("lora", rank_pattern={"query": 4}), 3, f"{Q} has rank 2; adapter_config.json says 4"
    ),
    "rank pattern invalid": Case(
        config("lora", rank_pattern={"(query": 2}), 3, "rank_pattern has an invalid pattern '(query'"
    ),
    "rank pattern repeats too much": Case(
        config("lora", rank_pattern={"a{99999999999}": 2}), 3, "rank_pattern has an invalid pattern"
    ),
    "rank pattern of nested sets": Case(config("lora", rank_pattern={"[[a]x": 2}, r=8), 3, "says 8"),
    "rank pattern that never ends": Case(
        config("lora", rank_pattern={"(.|.)*(.|.)*(.|.)*#": 2}), 5, "is too complex a pattern"
    ),
    "rank pattern deep": Case(config("lora", rank_pattern={"(" * 5000 + ")" * 5000: 2}), 5, "is too complex a pattern"),
    "rank pattern a list": Case(config("lora", rank_pattern=["query"]), 3, "rank_pattern must map"),
    "alpha pattern a boolean": Case(
        config("lora", alpha_pattern={"query": True}), 3, "lora_alpha must be a positive number, found True"
    ),
    "DoRA without magnitudes": Case(
        config("lora", use_dora=True), 3, "lora_magnitude_vector is missing", "--mode static"
    ),
    "magnitudes without DoRA": Case(
        weights("lora", put(f"{Q}.lora_magnitude_vector", np.ones(12, "f4"))), 3, "unexpected tensors", "--mode static"
    ),
    "DoRA is text": Case(config("lora", use_dora="no"), 3, "use_dora must be true or false, found 'no'"),
    "randomized PiSSA": Case(config("lora", init_lora_weights="pissa_niter_4"), 5, "a randomized SVD changed the base"),
    "KaSA": Case(config("lora", kasa_config={"beta": 1}), 3, "lora_diag is missing"),
    "biases of no kind": Case(config("lora", bias="some"), 5, "bias='some' is not supported"),
    "an embedding's half": Case(
        weights("lora", put("words.lora_embedding_A", np.ones((2, 20), "f4"))), 3, "lora_embedding_B is missing"
    ),
    "dynamic": Case(nothing, 5, "LoRA has no router", "--mode dynamic"),
    "convolution": Case(
        weights("lora", put(f"{Q}.lora_A.weight", lambda a: a[:, :, None, None])), 3, "it must have 4 axes"
    ),
    "a module that is not in the base": Case(
        weights("lora", put("classifier.weight", np.ones((2, 14), "f4"))),
        5,
        "has no classifier.weight, which the adapter",
    ),
    "a module of one axis": Case(
        weights("lora", put(f"{OTHER}.weight", np.ones(14, "f4"))), 3, f"{OTHER}.weight is [14] in the adapter, "
    ),
    "a module of no axes": Case(
        weights("lora", put(f"{OTHER}.weight", np.float32(1).reshape(()))), 3, f"{OTHER}.weight is [1] in the adapter, "
    ),
    "a module without rows": Case(
        weights("lora", put(f"{OTHER}.weight", np.ones((0, 12), "f4"))), 3, f"{OTHER}.weight is empty"
    ),
    "a module of another width": Case(
        weights("lora", put(f"{OTHER}.weight", np.ones((14, 9), "f4"))),
        3,
        f"{OTHER}.weight is [14, 9] in the adapter, ",
    ),
    "a tensor of no module": Case(
        weights("lora", put("weight", np.ones((14, 9), "f4"))), 3, "unexpected tensors: weight"
    ),
    "different bases": Case(
        lambda s: (shutil.rmtree(s.lora2), write_lora(s.lora2, {Q: (12, 16)}, seed=1)),
        3,
        "are not of one base: layer.0.query has widths [(10, 12), (16, 12)]",
        adapters="lora lora2",
    ),
    "top-k": Case(nothing, 2, "--top-k is for EPT", "--mode conditioned --top-k 2"),
    "route": Case(nothing, 2, "--route is for HydraLoRA, Lily, MixLoRA and TuckA", "--mode conditioned --route 0:1,1"),
    "routing": Case(nothing, 2, "--routing is for Lily and TuckA", "--mode dynamic --routing row"),
    "values past float32": Case(
        weights("lora", put(f"{Q}.lora_A.weight", lambda a: a.astype("f8") * 1e300)), 6, "does not fit float32"
    ),
}

FIT: Table = {
    "a module that the base has not": Case(
        weights("lora", _add_module("layer.1.query")),
        3,
        "1 of 3 adapted modules are not found in the base graph: layer.1.query",
    ),
    "no module that the base has": Case(
        weights("lora", rename("layer.0", "encoder.7")),
        3,
        "2 of 2 adapted modules are not found in the base graph: encoder.7.dense, encoder.7.query",
    ),
    "two modules that are one": Case(
        weights("lora", _add_module(f"bert.{Q}")), 3, f"bert.{Q} and {Q} are one product of the base graph"
    ),
    "input too wide": Case(
        lambda s: (shutil.rmtree(s.lora), write_lora(s.lora, {Q: (12, 16)}, seed=1)),
        3,
        "layer.0.query is [12, 10] in the base, [12, 16] in the adapter",
        "--mode conditioned --tasks a",
    ),
    "output too wide": Case(
        lambda s: (shutil.rmtree(s.lora), write_lora(s.lora, {Q: (13, 10)}, seed=1)),
        3,
        "does not fit this base: layer.0.query is [12, 10] in the base",
    ),
    "static too": Case(
        lambda s: (shutil.rmtree(s.lora), write_lora(s.lora, {Q: (13, 10)}, seed=1)),
        3,
        "does not fit this base",
        "--mode static",
    ),
}


@cases(lora=LORA, lora__fit=FIT)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)

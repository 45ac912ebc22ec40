"""The settings of PEFT's LoRA: which of them eptx reads, which change nothing, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eptx._one_line import shown
from eptx.errors import AdapterError, NotSupportedError
from eptx.exporter.adapters.checkpoint import AGAIN, CONFIG, OF_EVERY_ADAPTER

#: What the adapter's tensors say anyway, what only training asks for, and what other files of eptx read.
_KNOWN = OF_EVERY_ADAPTER | frozenset(
    {
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias"),
        *("lora_dropout", "fan_in_fan_out", "megatron_config", "megatron_core", "runtime_config", "qalora_group_size"),
        *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"),
        *("monteclora_config", "kasa_config", "use_bdlora", "ensure_weight_tying", "merge_weights", "enable_lora"),
        *("trainable_token_indices", "target_parameters", "target_modules_to_tie"),
    }
)
#: Settings whose update is not a constant of the task, or is of another base.
_REFUSED = {
    "alora_invocation_tokens": "an aLoRA acts on the tokens after its invocation only, and no bundle counts those: "
    "train it as a plain LoRA",
    "layer_replication": "its base repeats layers: save a base folder with these layers written out, and train on that",
    "use_qalora": "its update is of a GPTQ base, which is quantized already: train a plain LoRA on the base as it was",
    "arrow_config": "arrow chooses among adapters by the data of each token: export each of them as a task",
}
_CONVERT = (
    "save the adapter converted to a plain LoRA (PEFT's save_pretrained with path_initial_model_for_weight_conversion)"
)
#: Starts that change the base in a way that the base and the adapter do not tell.
_REFUSED_STARTS = {
    "pissa_niter_": f"a randomized SVD changed the base: {_CONVERT}",
    "corda": f"data that it does not hold changed the base: {_CONVERT}",
    "lora_ga": f"gradients that it does not hold changed the base: {_CONVERT}",
    "loftq": "LoftQ changed the base: save the base that was trained on as a folder, export from that, and set "
    "init_lora_weights to true in this file",
}
#: Which of the base's biases were trained.
_BIASES = (None, "none", "all", "lora_only")
#: Starts that leave the base as it is, so that the factors say everything.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
#: Starts that take from the base what can be computed from it.
STARTS = ("pissa", "olora")
#: What these and KaSA, which does so too, are called.
TITLES = {"pissa": "PiSSA", "olora": "OLoRA", "kasa": "KaSA"}


def check(config: Mapping[str, Any], folder: str) -> None:
    """Refuses, by name, settings that would change what an adapter computes.

    Raises:
        NotSupportedError: with what to do.
        AdapterError: settings exclude each other.
    """
    for key, value in config.items():
        if not value:  # the default of every setting that may be unknown
            continue
        where = f"{folder}/{CONFIG}: {key}={shown(value)} is not supported"
        if key in _REFUSED:
            raise NotSupportedError(f"{where}: {_REFUSED[key]}")
        if key not in _KNOWN:
            raise NotSupportedError(f"{where}: this version of eptx does not know the setting: update eptx")
    if config.get("bias") not in _BIASES:
        where = f"{folder}/{CONFIG}: bias={shown(config['bias'])} is not supported"
        raise NotSupportedError(f"{where}: this version of eptx does not know the setting: update eptx")
    if config.get("use_dora") and config.get("lora_bias"):
        problem = "lora_bias and use_dora are both true, which PEFT does not train"
        raise AdapterError(f"{folder}/{CONFIG}: {problem}: set the one to false that was not trained")
    start = _lower(config.get("init_lora_weights"))
    where = f"{folder}/{CONFIG}: init_lora_weights={shown(start)} is not supported"
    if isinstance(start, str):
        for name, reason in _REFUSED_STARTS.items():
            if start.startswith(name):
                raise NotSupportedError(f"{where}: {reason}")
    if start not in (*_PLAIN_STARTS, *STARTS):
        raise NotSupportedError(f"{where}: this version of eptx does not know the setting: update eptx")
    if start in STARTS and config.get("target_parameters"):
        raise NotSupportedError(f"{where} with target_parameters: {_CONVERT}")
    if start == "olora" and config.get("fan_in_fan_out"):
        raise NotSupportedError(f"{where} on layers that store [in, out] (Conv1D): {_CONVERT}")


def blocks(config: Mapping[str, Any], module: str, factor: str) -> int:
    """How many blocks are on the diagonal of a module's factor, "a" or "b", with BD-LoRA; 1 without.

    Raises:
        AdapterError: the setting is not one of PEFT's.
    """
    given = config.get("use_bdlora")
    if not given:
        return 1
    patterns = (given.get(f"target_modules_bd_{factor}") or []) if isinstance(given, dict) else None
    count = given.get("nblocks", 1) if isinstance(given, dict) else 0
    if not isinstance(patterns, list) or not isinstance(count, int) or count < 1:
        raise AdapterError(f"{CONFIG}: use_bdlora must have nblocks and lists of names, found {shown(given)}: {AGAIN}")
    return count if any(str(pattern) in module for pattern in patterns) else 1


def start(config: Mapping[str, Any]) -> str:
    """What changed the base when the factors began: one of `STARTS`, or "kasa"; "" for nothing."""
    if config.get("kasa_config"):
        return "kasa"
    given = _lower(config.get("init_lora_weights"))
    return given if given in STARTS else ""


def _lower(start: Any) -> Any:
    """PEFT's own names of starts are in either case."""
    return start.lower() if isinstance(start, str) else start

"""Adapters put on their base by PEFT, and filled from their files by PEFT, strictly."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import Tensor

from eptx._one_line import one_line
from eptx.errors import AdapterError, EptxError
from eptx.exporter.methods.ept.config import EptConfig
from eptx.exporter.methods.ept.model import EptModel  # noqa: F401 - tells PEFT of it
from eptx.exporter.methods.tucka.config import TuckaConfig
from eptx.exporter.methods.tucka.model import TuckaModel  # noqa: F401 - as above
from eptx.exporter.quiet import quiet
from eptx.exporter.trained.classes import Base, load_base, saved_modules
from eptx.exporter.trained.files import PREFIX, WEIGHTS, AdapterFiles, Kind, head_tasks, top_k_of
from eptx.exporter.trained.model import Heads, Host, Trained
from eptx.exporter.trained.names import exactly, names_in
from eptx.exporter.training.heads import TaskHeadBank

#: A tensor that only one kind of adapter has at every module that it adapts.
_OF_MODULE = {"ept": ".lora_task_embedding.weight", "tucka": ".tucka_u"}
_KERNELS = ".lora_expert_kernels."
_GATE = ".lora_gate.0.weight"
#: Starts of LoRA's factors that leave the base as it is; with any other PEFT is to do what it did in training.
_STARTS = (False, None, "gaussian", "eva", "orthogonal")
#: Task types whose classifier PEFT saves without being told.
_WITH_CLASSIFIER = ("SEQ_CLS", "TOKEN_CLS")


def load_trained(
    base: Path,
    files: Sequence[AdapterFiles],
    tasks: Sequence[str],
    *,
    top_k: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Trained:
    """The model that was trained: its base as the class it was trained on, with the adapter on it.

    Args:
        base: the base's transformers folder.
        files: the adapter's folder; of LoRA several, each a task.
        tasks: the tasks by id.
        top_k: EPT: experts per task, where the files do not say it.
        dtype: what weights are held and everything is computed in.

    Raises:
        BaseModelError, AdapterError: files do not fit each other; a tensor that no parameter takes, or a parameter
            that no tensor fills.
        UsageError: nobody says an EPT adapter's top-k.
    """
    with quiet():
        hosts = _lora_hosts(base, files) if files[0].kind == "lora" else [_tuner_host(base, files[0], tasks, top_k)]
        hosts += _without(base, files[0], hosts, len(tasks))
    heads = _heads(files[0], tasks)
    for host in hosts:
        host.model.to(dtype).eval()
        host.watch()
    return Trained(hosts, tuple(tasks), heads.to(dtype) if heads is not None else None, dtype)


def _host(base: Base, kind: Kind, signature: tuple[Any, ...] = ()) -> Host:
    return Host(base.model, kind, signature, complete=base.complete, labelled=base.labelled, resized=base.resized)


def _without(base: Path, files: AdapterFiles, hosts: Sequence[Host], task: int) -> list[Host]:
    """The base with no adapter, where none of the models has its labels: for rows that switch the adapter off."""
    if not all(host.resized and host.complete for host in hosts):
        return []
    plain = Host(load_base(base, files, plain=True).model, files.kind, adapters={task: ""})
    plain.names = names_in(plain.model, [module for host in hosts for module in host.names])
    return [plain]


def _lora_hosts(base: Path, files: Sequence[AdapterFiles]) -> list[Host]:
    """LoRA adapters side by side on one model; one that brings modules of other shapes gets a model of its own."""
    hosts: list[Host] = []
    for index, each in enumerate(files):
        like = next((host for host in hosts if host.signature == _signature(each)), None)
        if like is None:
            like = _host(load_base(base, each), "lora", _signature(each))
            hosts.append(like)
        _add_lora(like, each, index)
    return hosts


def _signature(files: AdapterFiles) -> tuple[Any, ...]:
    """What adapters of one model have in common."""
    mapping = (files.config.get("auto_mapping") or {}).get("base_model_class")
    return (files.config.get("task_type"), mapping, tuple(sorted(saved_modules(files).items())))


def _add_lora(host: Host, files: AdapterFiles, task: int) -> None:
    config = _lora_config(files)
    modules = sorted({name.removeprefix(PREFIX).partition(".lora_")[0] for name in files.tensors if ".lora_" in name})
    names = names_in(host.model, modules)
    renamed = {old: new for old, new in names.items() if old != new}
    if renamed or not any(check_target_module_exists(config, module) for module in modules):
        _rename_config(config, names)  # PEFT would find none of the modules that the file has tensors for
    name = f"task{task}"
    try:
        if host.peft is None:
            host.peft = get_peft_model(host.model, config, adapter_name=name)
        else:
            host.peft.add_adapter(name, config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise AdapterError(
            f"{files.folder.name}: PEFT cannot put it on a {type(host.model).__name__}: {one_line(error)}"
        ) from None
    _fill(host.peft, files, name, renamed)
    host.adapters[task] = name
    host.names |= names


def _lora_config(files: AdapterFiles) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(files.folder))
    except (TypeError, ValueError, KeyError) as error:
        raise AdapterError(f"{files.folder.name}: PEFT cannot read its configuration: {one_line(error)}") from None
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"{files.folder.name}: is a {config.peft_type} adapter, not LoRA")
    config.inference_mode = True
    config.megatron_config = None  # with it PEFT imports a package that megatron_core names; no base here is megatron's
    config.task_type, config.modules_to_save = _saved_as(files)
    if config.init_lora_weights in _STARTS:  # what is about to be filled needs none; others change the base's weights
        config.init_lora_weights = True
    return config


def _rename_config(config: LoraConfig, names: Mapping[str, str]) -> None:
    """Settings that name modules, in the names of today."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = {new: ranks.get(get_pattern_key(list(ranks), old), config.r) for old, new in names.items()}
    alpha = {new: alphas.get(get_pattern_key(list(alphas), old), config.lora_alpha) for old, new in names.items()}
    config.target_modules, config.rank_pattern, config.alpha_pattern = exactly(list(names.values())), rank, alpha
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None


def _tuner_host(base: Path, files: AdapterFiles, tasks: Sequence[str], top_k: int | None) -> Host:
    """EPT or TuckA: one adapter of all tasks."""
    host = _host(load_base(base, files), files.kind)
    modules = list(files.shapes(_OF_MODULE[files.kind]))
    if not modules:
        raise AdapterError(f"{files.folder.name}: {WEIGHTS} holds no {files.kind} modules")
    host.names = names_in(host.model, modules)
    try:
        config = (
            _ept_config(files, host.names, tasks, top_k)
            if files.kind == "ept"
            else _tucka_config(files, host.names, tasks)
        )
        host.peft = get_peft_model(host.model, config, adapter_name="default")
    except EptxError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        name = type(host.model).__name__
        raise AdapterError(f"{files.folder.name}: cannot be put on a {name}: {one_line(error)}") from None
    _fill(host.peft, files, "default", {old: new for old, new in host.names.items() if old != new})
    host.state = host.peft.base_model.state
    host.adapters = dict.fromkeys(range(len(tasks)), "default")
    return host


def _ept_config(files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None) -> EptConfig:
    """The released configuration is LoRA's: experts and their sizes are in the tensors' shapes alone."""
    given = files.config
    ranks, alphas = given.get("rank_pattern") or {}, given.get("alpha_pattern") or {}
    sizes: dict[str, dict[int, int]] = {new: {} for new in names.values()}
    for name, tensor in files.tensors.items():
        module, kernel, number = name.removeprefix(PREFIX).rpartition(_KERNELS)
        if kernel and module not in names:
            raise AdapterError(f"{files.folder.name}: {WEIGHTS} has no tensor for {module}{_OF_MODULE['ept']}")
        if kernel and tensor.ndim == 4:
            sizes[names[module]][int(number)] = tensor.shape[2]
    pattern = {new: [by[number] for number in sorted(by)] for new, by in sizes.items()}
    gates = [shape[0] for shape in files.shapes(_GATE).values()]
    return EptConfig(
        r=given["r"],
        lora_alpha=given["lora_alpha"],
        use_rslora=bool(given.get("use_rslora")),
        target_modules=exactly(list(names.values())),
        rank_pattern={new: ranks.get(get_pattern_key(list(ranks), old), given["r"]) for old, new in names.items()},
        alpha_pattern={
            new: alphas.get(get_pattern_key(list(alphas), old), given["lora_alpha"]) for old, new in names.items()
        },
        kernel_sizes=max(pattern.values(), key=len),
        num_experts=max(gates, default=None),
        kernel_pattern=pattern,
        top_k=top_k_of(files, top_k),
        tasks=list(tasks),
        init_weights=False,
        task_type=_saved_as(files)[0],
        modules_to_save=_saved_as(files)[1],
        inference_mode=True,
    )


def _saved_as(files: AdapterFiles) -> tuple[str | None, list[str] | None]:
    """The task type and the modules that PEFT is to take from the file: those that the file holds.

    PEFT wraps the classifier of a SEQ_CLS adapter whether it was saved or not (its base may have it), and the released
    EPT saves it while its configuration says that nothing is.
    """
    saved = saved_modules(files)
    if not saved:
        return None, None
    said = list(files.config.get("modules_to_save") or [])
    told = [*said, *(["classifier", "score"] if files.config.get("task_type") in _WITH_CLASSIFIER else [])]
    unsaid = {name.rpartition(".")[0] for name in saved if not any(part in told for part in name.split("."))}
    return files.config.get("task_type"), [*said, *sorted(unsaid)] or None


def _tucka_config(files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str]) -> TuckaConfig:
    """What the file says; the router is the module that has the centroids."""
    known = {field.name for field in dataclasses.fields(TuckaConfig)}
    given = {key: value for key, value in files.config.items() if key in known and key != "peft_type"}
    routers = list(files.shapes(".tucka_ec"))
    if len(routers) != 1:
        raise AdapterError(f"{WEIGHTS}: {len(routers)} modules have tucka_ec; one module routes")
    return TuckaConfig(
        **given
        | {
            "target_modules": exactly(list(names.values())),
            "exclude_modules": None,
            "layers_to_transform": None,
            "layers_pattern": None,
            "router_name": names[routers[0]],
            "router_initialized": True,
            "tasks": list(tasks),
            "init_weights": False,
            "inference_mode": True,
            "task_type": _saved_as(files)[0],
            "modules_to_save": _saved_as(files)[1],
        }
    )


def _fill(model: PeftModel, files: AdapterFiles, name: str, renamed: Mapping[str, str]) -> None:
    """Has PEFT fill an adapter, and refuses what is left over on either side.

    Raises:
        AdapterError: by the name of the tensor or parameter.
    """
    tensors = {_in_model(key, renamed): tensor for key, tensor in files.tensors.items()}
    file = f"{files.folder.name}: {WEIGHTS}"
    try:
        result: Any = set_peft_model_state_dict(model, tensors, adapter_name=name)
    except KeyError as error:  # of a module that is saved whole
        raise AdapterError(f"{file} has no tensor for {error.args[0]}") from None
    except (RuntimeError, ValueError) as error:
        raise AdapterError(f"{file} does not fit the model: {_misfit(str(error), name)}") from None
    if result.unexpected_keys:
        raise AdapterError(f"{file}: no parameter of the model takes {_in_file(result.unexpected_keys[0], name)}")
    empty = [key for key in result.missing_keys if f".{name}." in f"{key}."]
    if empty:
        raise AdapterError(f"{file} has no tensor for {_in_file(empty[0], name)}")


def _misfit(text: str, name: str) -> str:
    """What torch says of shapes, in a line about the first of them."""
    found = re.search(r"size mismatch for (\S+): .*?Size\((\[.*?\])\).*?Size\((\[.*?\])\)", text)
    if found is None:
        return " ".join(text.split())[:200]
    return f"{_in_file(found[1], name)} is {found[2]}, the model's is {found[3]}"


def _in_file(key: str, name: str) -> str:
    """A parameter's name as files have it, without the adapter's name in PEFT."""
    return key.replace(f".modules_to_save.{name}.", ".").replace(f".{name}.", ".").removesuffix(f".{name}")


def _in_model(key: str, renamed: Mapping[str, str]) -> str:
    """A tensor's name with its module as the model calls it."""
    plain = key.removeprefix(PREFIX)
    for marker in (".lora_", ".tucka_"):
        module, found, rest = plain.partition(marker)
        if found and module in renamed:
            return f"{PREFIX}{renamed[module]}{marker}{rest}"
    return key


def _heads(files: AdapterFiles, tasks: Sequence[str]) -> Heads | None:
    """The heads that eptx's training saved, as its own module."""
    if files.heads is None:
        return None
    found = head_tasks(files)
    unknown = [task for task in found if task not in tasks]
    if unknown:
        raise AdapterError(f"task_heads.safetensors has a head for {unknown[0]!r}; the tasks are {', '.join(tasks)}")
    own = [task for task in tasks if task in found]
    zeros = {f"{task}.bias": torch.zeros(len(files.heads[f"{task}.weight"])) for task in own}
    tensors: dict[str, Tensor] = {**zeros, **files.heads}
    return Heads(TaskHeadBank.from_tensors(tensors, own), str(files.config.get("task_head_pooling") or "pooler"))


__all__ = ["load_trained"]

"""Loads the trained model: PEFT puts the adapters on their base and fills them from their files, strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from eptx._one_line import one_line
from eptx.errors import AdapterError, EptxError
from eptx.exporter.quiet import quiet
from eptx.exporter.trained.classes import Base, load_base, saved_modules
from eptx.exporter.trained.files import PREFIX, WEIGHTS, AdapterFiles, head_tasks
from eptx.exporter.trained.host import Host
from eptx.exporter.trained.model import Trained
from eptx.exporter.trained.names import names_in
from eptx.exporter.trained.output import Heads
from eptx.exporter.trained.reference import Reference, SavedAs, reference_of
from eptx.exporter.trained.sentence import load_sentence
from eptx.exporter.training.heads import TaskHeadBank

#: How the names end of what `trainable_token_indices` trains.
_ROWS = ".trainable_tokens_delta"
#: Task types whose classifier PEFT always saves.
_WITH_CLASSIFIER = ("SEQ_CLS", "TOKEN_CLS")


def load_trained(
    base: Path,
    files: Sequence[AdapterFiles],
    tasks: Sequence[str],
    *,
    top_k: int | None = None,
    model_class: str | None = None,
    dtype: torch.dtype = torch.float64,
    allow_pickle: bool = False,
) -> Trained:
    """Loads the base as the class that was trained, with the adapter on it.

    Args:
        base: the base's transformers folder.
        files: the adapter's folder, or several, each a task.
        tasks: the tasks by id.
        top_k: experts per task, where it is needed and the files do not say it.
        model_class: the class of transformers, if somebody names it.
        dtype: of the weights and of all computations.
        allow_pickle: whether a pickle of the base's sentence-transformers folder may be read.

    Raises:
        BaseModelError, AdapterError: files do not fit each other; a tensor that no parameter takes, or a parameter
            that no tensor fills.
        UsageError: nobody says a top-k that is needed.
    """
    with quiet():
        load = partial(load_base, base, model_class=model_class)
        hosts = _hosts(load, files, tasks, top_k)
        hosts += _without(load, files[0], hosts, len(tasks))
    heads, sentence = _heads(files, tasks), load_sentence(base, allow_pickle=allow_pickle)
    for host in hosts:
        host.model.to(dtype).eval()
        for layer in host.model.modules():
            if isinstance(vars(layer).get("dtype"), torch.dtype):  # some of PEFT's layers keep that of their making
                layer.dtype = dtype
            inner = getattr(layer, "base_layer", None)
            if isinstance(inner, nn.Conv1d):
                layer.stride = inner.stride  # Whisper's encoder asks its convolutions, and PEFT's layer cannot say it
        host.watch()
    for module in (heads, sentence):
        if module is not None:
            module.to(dtype)
    return Trained(hosts, tuple(tasks), heads, dtype, sentence)


def _without(load: Callable[..., Base], files: AdapterFiles, hosts: Sequence[Host], task: int) -> list[Host]:
    """The base without an adapter, for rows that switch it off, if no model is the base when it is off."""
    if not all((host.base.resized or host.changed) and host.base.complete for host in hosts):
        return []
    plain = Host(load(files, plain=True), reference_of(files), adapters={task: ""})
    plain.names = names_in(plain.model, [module for host in hosts for module in host.names])
    return [plain]


def _hosts(
    load: Callable[..., Base], files: Sequence[AdapterFiles], tasks: Sequence[str], top_k: int | None
) -> list[Host]:
    """The adapters side by side on one model; an adapter with modules of other shapes gets its own model."""
    hosts: list[Host] = []
    for index, each in enumerate(files):
        method = reference_of(each)
        changes = method.changes_base(each.config)
        alone = changes or method.one_model_each
        alike = (host for host in hosts if host.signature == _signature(each) and not host.changed and not alone)
        host = next(alike, None)
        if host is None:
            host = Host(load(each), method, _signature(each), changed=changes)
            hosts.append(host)
        _put_on(host, each, range(index, index + 1) if method.one_task_each else range(len(tasks)), tasks, top_k)
    for host in hosts:  # a task's outputs are compared at the modules of all tasks
        host.names |= names_in(host.model, {module for other in hosts for module in other.names} - host.names.keys())
    return hosts


def _is_no_linear(layer: nn.Module) -> bool:
    """Whether an adapted module is a table, a norm, a convolution or a parameter: outputs and tensors show it."""
    inner: Any = layer
    while isinstance(getattr(inner, "base_layer", None), nn.Module):
        inner = inner.base_layer
    weight = getattr(inner, "weight", None)
    is_norm = isinstance(weight, Tensor) and weight.ndim == 1
    return (
        is_norm
        or isinstance(layer, ParamWrapper)
        or isinstance(inner, nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    )


def _signature(files: AdapterFiles) -> tuple[Any, ...]:
    """What adapters of one model have in common."""
    mapping = (files.config.get("auto_mapping") or {}).get("base_model_class")
    beside = {name: tuple(t.shape) for name, t in files.tensors.items() if ".base_layer." in name}
    beside |= {name: () for name in files.tensors if name.endswith(".trainable_tokens_delta")}
    parameters = tuple(sorted(files.config.get("target_parameters") or ()))
    kinds = (files.config.get("peft_type"), files.config.get("task_type"), mapping, parameters)
    return (*kinds, tuple(sorted((saved_modules(files) | beside).items())))


def _put_on(host: Host, files: AdapterFiles, ids: range, tasks: Sequence[str], top_k: int | None) -> None:
    """Makes PEFT put an adapter on a model, for the tasks with these ids, and fill it from its files."""
    method, name = host.method, f"task{ids.start}"
    names = names_in(host.model, method.modules(files))
    try:
        config = method.config(files, names, tasks, top_k, _saved_as(files))
        if host.peft is None:
            host.peft = get_peft_model(host.model, config, adapter_name=name)
        else:
            host.peft.add_adapter(name, config)
    except EptxError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise AdapterError(
            f"{files.folder.name}: PEFT cannot put it on a {type(host.model).__name__}: {one_line(error)}"
        ) from None
    _fill(host.peft, files, method, name, {old: new for old, new in names.items() if old != new})
    if not names:  # one tensor serves all layers
        names = {name: name for name, layer in host.model.named_modules() if isinstance(layer, BaseTunerLayer)}
    names = {old: new for old, new in names.items() if not _is_no_linear(host.model.get_submodule(new))}
    host.state = method.state(host.peft, names)
    host.adapters |= dict.fromkeys(ids, name)
    host.names |= names


def _saved_as(files: AdapterFiles) -> SavedAs:
    """The task type, and the modules that PEFT takes whole from the file: those that the file holds.

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


def _fill(model: PeftModel, files: AdapterFiles, method: Reference, name: str, renamed: Mapping[str, str]) -> None:
    """Makes PEFT fill an adapter, and refuses tensors and parameters that are left over.

    Raises:
        AdapterError: by the name of the tensor or parameter.
    """
    part = method.part(files.config)
    tensors = {_in_model(key, part, renamed): tensor for key, tensor in files.tensors.items() if not _again(key, files)}
    file = f"{files.folder.name}: {WEIGHTS}"
    try:
        result: Any = set_peft_model_state_dict(model, tensors, adapter_name=name)
    except KeyError as error:  # of a module that is saved in full
        raise AdapterError(f"{file} has no tensor for {error.args[0]}") from None
    except (RuntimeError, ValueError) as error:
        raise AdapterError(f"{file} does not fit the model: {_misfit(str(error), name)}") from None
    unexpected = [key for key in result.unexpected_keys if not _said_twice(_in_file(key, name), tensors)]
    if unexpected:
        raise AdapterError(f"{file}: no parameter of the model takes {_in_file(unexpected[0], name)}")
    # what PEFT itself would save; the rest it makes of a seed or of the base
    whole = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    empty = sorted(key for key in whole.keys() - tensors.keys() if not _again(key, files))
    if empty:
        raise AdapterError(f"{file} has no tensor for {empty[0]}")


def _again(key: str, files: AdapterFiles) -> bool:
    """Whether PEFT saved a tensor once more, by its name inside of the layer around a module saved whole."""
    return ".modules_to_save." in key and key.replace(".modules_to_save", "") in files.tensors


def _said_twice(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is the rows of tokens of a head that shares its embeddings, whose rows PEFT has filled."""
    rows = [tensor for other, tensor in tensors.items() if other.endswith(_ROWS) and other != key]
    return key.endswith(_ROWS) and key in tensors and any(torch.equal(tensors[key], tensor) for tensor in rows)


def _misfit(text: str, name: str) -> str:
    """The first mismatch of shapes in torch's message, on one line."""
    found = re.search(r"size mismatch for (\S+): .*?Size\((\[.*?\])\).*?Size\((\[.*?\])\)", text)
    if found is None:
        return " ".join(text.split())[:200]
    return f"{_in_file(found[1], name)} is {found[2]}, the model's is {found[3]}"


def _in_file(key: str, name: str) -> str:
    """A parameter's name in files, which lacks the adapter's name in PEFT."""
    return key.replace(f".modules_to_save.{name}.", ".").replace(f".{name}.", ".").removesuffix(f".{name}")


def _in_model(key: str, part: str, renamed: Mapping[str, str]) -> str:
    """A tensor's name with its module's name in the model."""
    module, found, rest = key.removeprefix(PREFIX).partition(part)
    return f"{PREFIX}{renamed[module]}{part}{rest}" if found and module in renamed else key


def _heads(files: Sequence[AdapterFiles], tasks: Sequence[str]) -> Heads | None:
    """The task heads that eptx's training saved: of one folder, or of several that are a task each."""
    found: dict[str, Tensor] = {}
    for index, each in enumerate(files):
        served = tasks if len(files) == 1 else tasks[index : index + 1]
        unknown = [task for task in head_tasks(each) if task not in served]
        if unknown:
            names = ", ".join(served)
            raise AdapterError(f"task_heads.safetensors has a head for {unknown[0]!r}; the tasks are {names}")
        own = each.heads or {}
        found |= {f"{task}.bias": torch.zeros(len(own[f"{task}.weight"])) for task in head_tasks(each)} | {**own}
    poolings = {str(each.config.get("task_head_pooling") or "pooler") for each in files if each.heads is not None}
    if not poolings:
        return None
    if len(poolings) > 1:
        raise AdapterError(f"the adapters' heads read different vectors: {', '.join(sorted(poolings))}")
    return Heads(TaskHeadBank.from_tensors(found, [t for t in tasks if f"{t}.weight" in found]), poolings.pop())


__all__ = ["load_trained"]

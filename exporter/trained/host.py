"""One transformers model with adapters on it, and what its adapted layers gave in a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from eptx.exporter.trained.classes import Base
from eptx.exporter.trained.reference import Reference

#: What a class returns besides its outputs: its cache, and the encoder's states. A bundle passes those on its own way.
_NOT_OUTPUTS = ("past_key_values", "encoder_last_hidden_state", "loss")


@dataclass
class Host:
    """One transformers model with adapters on it.

    Attributes:
        base: the model, with the adapted layers in place.
        method: of its adapters.
        signature: what all of its adapters have in common.
        changed: whether its only adapter has changed the base itself.
        peft: PEFT's wrapper around it.
        adapters: task id -> the adapter's name in PEFT.
        names: the adapter's module name -> the layer's name in the model.
        state: what the adapted layers share, None where PEFT needs nothing.
    """

    base: Base
    method: Reference
    signature: tuple[Any, ...] = ()
    changed: bool = False
    peft: PeftModel | None = None
    adapters: dict[int, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    state: Any = None
    _modules: dict[str, Tensor] = field(default_factory=dict)
    _groups: dict[str, Tensor] = field(default_factory=dict)
    _inner: dict[str, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.base.model

    def watch(self) -> None:
        """Keeps the first output of every adapted layer in a forward, and the outputs of the bare model inside."""
        for module, name in self.names.items():
            self.model.get_submodule(name).register_forward_hook(self._keep(module))
        bare = getattr(self.model, str(self.model.base_model_prefix or ""), None)
        if isinstance(bare, nn.Module):
            bare.register_forward_hook(lambda layer, args, output: self._inner.update(tensors_of(output)))

    def _keep(self, module: str) -> Any:
        def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
            if getattr(self.state, "probing", False) or module in self._modules:
                return
            self._modules[module] = output.clone()  # what follows may add to it in place (Falcon)
            route = getattr(self.state, "used", None)
            if route is not None:
                self._groups[module] = route.group

        return keep

    @contextmanager
    def on(self, task: int | None) -> Iterator[None]:
        """With the adapter of a task, or None: with no adapter."""
        if self.peft is None:
            yield
            return
        if task is None:
            # as PEFT's context does, which first asks every layer for its state and takes as long as a forward
            tuner: Any = self.peft.base_model
            tuner.disable_adapter_layers()
            try:
                yield
            finally:
                tuner.enable_adapter_layers()
            return
        if self.method.one_task_each:
            self.peft.set_adapter(self.adapters[task], inference_mode=True)
        yield

    @property
    def saved(self) -> list[str]:
        """The modules that the adapters replace, for example a classifier, besides those that they adapt."""
        return [name for name, module in self.model.named_modules() if isinstance(module, ModulesToSaveWrapper)]

    def layer(self, module: str) -> Any:
        """An adapted layer by its name in the adapter's files."""
        return self.model.get_submodule(self.names[module])

    def forget(self) -> None:
        """Drops what the last forward left."""
        self._modules.clear()
        self._groups.clear()
        self._inner.clear()


def tensors_of(result: Any) -> dict[str, Tensor]:
    """The outputs of a transformers model by name; those of a model inside it behind its name and a dot (CLIP)."""
    found: dict[str, Tensor] = {}
    for name, value in result.items() if hasattr(result, "items") else ():
        if name in _NOT_OUTPUTS:
            continue
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, ModelOutput):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors_of(value).items()}
    return found

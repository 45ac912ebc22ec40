"""One transformers model with adapters on it, and what its adapted layers gave in a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from eptx.exporter.trained.reference import Reference

#: What a class returns beside its outputs: its cache, and the encoder's states, which a bundle hands on in its own way.
_NOT_OUTPUTS = ("past_key_values", "encoder_last_hidden_state", "loss")


@dataclass
class Host:
    """One transformers model with adapters on it.

    Attributes:
        model: the model, the adapted layers in place.
        method: whose adapter it is.
        signature: what the adapters that share it have in common.
        peft: PEFT's wrapper around it.
        adapters: task id -> the adapter's name in PEFT.
        names: the adapter's module name -> the layer's name in the model.
        state: what the adapted layers share, None where PEFT needs nothing.
        complete: whether the base alone has all that its class needs.
        labelled: whether the adapters bring what gives the class's labels.
        resized: whether those are other labels than the base's, whose head the model then lacks.
    """

    model: Any
    method: Reference
    signature: tuple[Any, ...] = ()
    peft: PeftModel | None = None
    adapters: dict[int, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    state: Any = None
    complete: bool = True
    labelled: bool = False
    resized: bool = False
    _modules: dict[str, Tensor] = field(default_factory=dict)
    _groups: dict[str, Tensor] = field(default_factory=dict)
    _inner: dict[str, Tensor] = field(default_factory=dict)

    def watch(self) -> None:
        """Keeps every adapted layer's first output of a forward, and what the bare model inside gives."""
        for module, name in self.names.items():
            self.model.get_submodule(name).register_forward_hook(self._keep(module))
        bare = getattr(self.model, str(self.model.base_model_prefix or ""), None)
        if isinstance(bare, nn.Module):
            bare.register_forward_hook(lambda layer, args, output: self._inner.update(tensors_of(output)))

    def _keep(self, module: str) -> Any:
        def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
            if getattr(self.state, "probing", False) or module in self._modules:
                return
            self._modules[module] = output
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
            # what PEFT's context does; that one asks every layer for its state first, which takes as long as a forward
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
        """The modules that the adapters bring whole, a classifier for example, beside what they adapt."""
        return [name for name, module in self.model.named_modules() if isinstance(module, ModulesToSaveWrapper)]

    def layer(self, module: str) -> Any:
        """An adapted layer by the adapter's name of it."""
        return self.model.get_submodule(self.names[module])

    def forget(self) -> None:
        """Before another forward."""
        self._modules.clear()
        self._groups.clear()
        self._inner.clear()


def tensors_of(result: Any) -> dict[str, Tensor]:
    """The outputs of a transformers model by name."""
    named = result.items() if hasattr(result, "items") else ()
    return {name: value for name, value in named if isinstance(value, Tensor) and name not in _NOT_OUTPUTS}

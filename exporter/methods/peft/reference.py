"""The trained model of PEFT's other methods: PEFT's own, one model for each adapter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from eptx.errors import NotSupportedError
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import Reference, SavedAs, peft_config

#: Settings that name modules besides ``target_modules``; with them a module cannot be renamed.
_NAMING = ("rank_pattern", "alpha_pattern", "feedforward_modules", "layers_pattern")


class PeftReference(Reference):
    """Adapters of any of PEFT's methods; few of them can be side by side on one model."""

    name: ClassVar[str] = "peft"
    title: ClassVar[str] = "PEFT"
    last_choice: ClassVar[bool] = True
    one_task_each: ClassVar[bool] = True
    one_model_each: ClassVar[bool] = True

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return str(config.get("peft_type")) in self._prefixes()

    def part(self, config: Mapping[str, Any]) -> str:
        """PEFT's prefix is of a layer's own parameters; what layers share has its first word alone."""
        prefix = self._prefixes().get(str(config.get("peft_type")))
        return "" if prefix is None else f".{prefix.partition('_')[0]}_"

    def _prefixes(self) -> dict[str, str]:
        return {kind.value: prefix for kind, prefix in PEFT_TYPE_TO_PREFIX_MAPPING.items()}

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        """Several folders are a task each, called as the folders are."""
        return len(files), [each.folder.name for each in files] if len(files) > 1 else []

    def kind(self, config: Mapping[str, Any]) -> str:
        """PEFT's own name of it."""
        return str(config.get("peft_type")).lower()

    def modules(self, files: AdapterFiles) -> list[str]:
        """Those that have tensors of their own."""
        part, own = self.part(files.config), [name for name in files.tensors if name.startswith(PREFIX)]
        return sorted({name.removeprefix(PREFIX).partition(part)[0] for name in own if part in name})

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> Any:
        config = peft_config(files, saved)
        if any(old != new for old, new in names.items()):
            said = next((key for key in _NAMING if getattr(config, key, None)), None)
            if said is not None:
                raise NotSupportedError(f"{files.folder.name}: {said} names modules that transformers has renamed")
            config.target_modules = exactly(list(names.values()))
        return config

    def together(self, task: int, count: int) -> Hashable:
        """Every adapter has a model of its own."""
        return task


REFERENCE = PeftReference()

"""The trained LoRA model: PEFT's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from eptx.errors import AdapterError
from eptx.exporter.trained.files import PREFIX, AdapterFiles
from eptx.exporter.trained.folder_names import folder_names
from eptx.exporter.trained.names import exactly
from eptx.exporter.trained.reference import Reference, SavedAs, peft_config

#: Starts of the factors that leave the base as it is; with any other PEFT is to do what it did in training.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


class LoraReference(Reference):
    """LoRA adapters side by side on one model."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    tensor_part: ClassVar[str] = ".lora_"
    factors: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
    vectors: ClassVar[tuple[str, ...]] = ("lora_magnitude_vector",)
    last_choice: ClassVar[bool] = True
    one_task_each: ClassVar[bool] = True

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        return config.get("peft_type") == "LORA"

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        """Several folders are a task each, called by what tells the folders apart."""
        return len(files), folder_names([each.folder for each in files]) if len(files) > 1 else []

    def modules(self, files: AdapterFiles) -> list[str]:
        """PEFT wraps a module of which it adapts several parameters several times."""
        part = self.tensor_part
        found = {name.removeprefix(PREFIX).partition(part)[0] for name in files.tensors if part in name}
        return sorted({name.replace(".base_layer", "") for name in found})

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> LoraConfig:
        config = peft_config(files, saved)
        if not isinstance(config, LoraConfig):
            raise AdapterError(f"{files.folder.name}: is a {config.peft_type} adapter, not LoRA")
        config.megatron_config = None  # with it PEFT imports a package that megatron_core names; no base here needs it
        if config.init_lora_weights in _STARTS:  # what is filled needs no start; other starts change the base's weights
            config.init_lora_weights = True
        renamed = any(old != new for old, new in names.items())
        found = any(check_target_module_exists(config, module) for module in names)
        if renamed or not (found or config.target_parameters):
            _rename(config, names)  # PEFT would find none of the modules that the file has tensors for
        return config

    def changes_base(self, config: Mapping[str, Any]) -> bool:
        start = config.get("init_lora_weights")
        return start not in (*_STARTS, "mica") or bool(config.get("kasa_config")) or super().changes_base(config)

    def together(self, task: int, count: int) -> Hashable:
        """PEFT switches between adapters for a whole forward."""
        return task


REFERENCE = LoraReference()


def _rename(config: LoraConfig, names: Mapping[str, str]) -> None:
    """Settings that name modules, in the names of today."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = {new: ranks.get(get_pattern_key(list(ranks), old), config.r) for old, new in names.items()}
    alpha = {new: alphas.get(get_pattern_key(list(alphas), old), config.lora_alpha) for old, new in names.items()}
    config.target_modules, config.rank_pattern, config.alpha_pattern = exactly(list(names.values())), rank, alpha
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None

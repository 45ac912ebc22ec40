"""What a method gives the trained model: how PEFT loads it, and how it is run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor

from eptx._one_line import one_line
from eptx.errors import AdapterError, UsageError
from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods import modules
from eptx.exporter.trained.files import AdapterFiles, plainly_named, read_folder

#: The task type, and the modules that PEFT is to take whole from an adapter's file.
SavedAs: TypeAlias = tuple[str | None, list[str] | None]
#: The route of each call of the router, for all rows or one per row; None: the call keeps its own.
CallRoutes: TypeAlias = Sequence[Route | Sequence[Route] | None]


@dataclass(frozen=True)
class GivenRoutes:
    """What one forward is told of routes.

    Attributes:
        dtype: what it computes in.
        route: a route for everything, or one per row, instead of the router's; None: the router routes.
        routing: the router's reach, "batch" or "row".
        calls: the route of each call of the router in turn, or of each module.
    """

    dtype: torch.dtype
    route: Route | Sequence[Route] | None = None
    routing: str = "batch"
    calls: CallRoutes = ()


class Reference(Protocol):
    """One method's trained model. The defaults are those of a method whose folder holds all tasks, without a router.

    `layer` is an adapted layer.

    Attributes:
        name: as manifests and commands call the method.
        title: as its paper or library writes it.
        tensor_part: how the names of its tensors go on after the module's name; "" where `part` says it.
        factors: the parameters behind whose names only an adapter's can stand, in a ``state_dict`` of PEFT's.
        vectors: those whose names PEFT saves without their last word.
        router_parts: parts of the names of a router's parameters: bundles store those in float32, or as tables.
        last_choice: whether its files are taken for it only if they match no other method.
        one_task_each: whether every folder is an adapter of its own, a task each, on one base.
        one_model_each: whether PEFT cannot put two of its adapters on one model.
        takes_top_k: whether somebody must say how many experts a task uses.
        infers_tasks: whether a row's task may be -1, for the layers to infer it.
        routes_by_data: whether a router decides by the data of all rows that run together.
        routes_by_module: whether every module, or feed-forward, has a router of its own, and a frozen route then.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tensor_part: ClassVar[str] = ""
    factors: ClassVar[tuple[str, ...]] = ()
    vectors: ClassVar[tuple[str, ...]] = ()
    router_parts: ClassVar[tuple[str, ...]] = ()
    last_choice: ClassVar[bool] = False
    one_task_each: ClassVar[bool] = False
    one_model_each: ClassVar[bool] = False
    takes_top_k: ClassVar[bool] = False
    infers_tasks: ClassVar[bool] = False
    routes_by_data: ClassVar[bool] = False
    routes_by_module: ClassVar[bool] = False

    def matches(self, config: Mapping[str, Any], tensors: Sequence[str]) -> bool:
        """Whether a folder's configuration and names of tensors are of this method."""
        ...

    def part(self, config: Mapping[str, Any]) -> str:
        """How the names of a folder's own tensors go on after the module's name; "" if it is of another method."""
        return self.tensor_part

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        """How many tasks there are, and the names that the files give them; `given` are the user's."""
        ...

    def kind(self, config: Mapping[str, Any]) -> str:
        """What manifests call the method of a folder with this configuration."""
        return self.name

    def modules(self, files: AdapterFiles) -> list[str]:
        """The adapted modules, as the files name them."""
        ...

    def routers(self, files: AdapterFiles) -> Mapping[str, int]:
        """Of `routes_by_module`: a module of each router -> how many experts it weighs, in the order of the routes."""
        return {}

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: SavedAs
    ) -> Any:
        """PEFT's configuration of the adapter.

        Args:
            files: the adapter's folder.
            names: the modules' names in the files -> their names in the model.
            tasks: the tasks by id.
            top_k: experts per task, where the files do not say it.
            saved: the task type, and the modules that PEFT is to take whole from the file.

        Raises:
            AdapterError: the files contradict themselves.
            UsageError: nobody says top-k.
        """
        ...

    def changes_base(self, config: Mapping[str, Any]) -> bool:
        """Whether PEFT changes the base itself for an adapter, so that others cannot share its model."""
        return bool(config.get("bias", "none") != "none")

    def state(self, peft: PeftModel, names: Mapping[str, str]) -> Any:
        """What the adapted layers share, None where PEFT needs nothing; asked for when an adapter is on the model.

        `names` are those of the adapted modules: in the files -> in the model.
        """
        return vars(peft.base_model).get("state")

    def together(self, task: int, count: int) -> Hashable:
        """Rows of tasks for which this is equal may share a forward; the id `count` switches the adapter off."""
        return None

    def tell(self, state: Any, ids: Tensor, routes: GivenRoutes) -> None:
        """Tells the layers the rows' tasks int64 [batch], or the route, before a forward."""
        return None

    def hold(self, state: Any, ids: Tensor) -> None:
        """Of an encoder-decoder: has what was found out in the encoder hold for the answer."""
        return None

    def is_router(self, layer: Any) -> bool:
        """Whether a layer's input decides the route of all modules."""
        return False

    def slots(self, layer: Any) -> int:
        """How many outputs a layer gives for every token, as an axis before the features; 1 without such an axis."""
        return 1

    def experts(self, layer: Any, dtype: torch.dtype) -> tuple[np.ndarray, int] | None:
        """How probable each expert is for each task [tasks, experts], and how many win; None without such a choice."""
        return None

    def update_by(self, layer: Any, weight: Tensor) -> bool:
        """Has a layer multiply its update by another weight [out, in] than its input; False if no weight does that."""
        return False


def peft_config(files: AdapterFiles, saved: SavedAs) -> Any:
    """PEFT's own configuration of a folder, to be run.

    Args:
        files: the adapter's folder.
        saved: the task type, and the modules that PEFT is to take whole from the file.

    Raises:
        AdapterError: PEFT cannot read it.
    """
    try:
        config: Any = PeftConfig.from_pretrained(str(files.folder))
    except (TypeError, ValueError, KeyError) as error:
        raise AdapterError(f"{files.folder.name}: PEFT cannot read its configuration: {one_line(error)}") from None
    config.inference_mode = True
    config.task_type, config.modules_to_save = saved
    return config


def references() -> list[Reference]:
    """Those of all methods, in the order in which they are asked whose files a folder holds."""
    found: list[Reference] = [module.REFERENCE for module in modules("reference")]
    return sorted(found, key=lambda reference: reference.last_choice)


def reference_of(files: AdapterFiles) -> Reference:
    """The method of an adapter's files; what no other method has is PEFT's own."""
    tensors = list(files.tensors)
    *others, last = references()
    return next((reference for reference in others if reference.matches(files.config, tensors)), last)


def kind_of(files: Sequence[AdapterFiles]) -> str:
    """What manifests call the method of an adapter's folders; of several, the one that is of all."""
    kinds = {reference_of(each).kind(each.config) for each in files}
    return kinds.pop() if len(kinds) == 1 else references()[-1].name


def read_files(folders: Sequence[Path], *, allow_pickle: bool = False) -> list[AdapterFiles]:
    """Reads adapter folders.

    Raises:
        AdapterError: a file is missing or damaged.
        UsageError: they are of different methods, or several where one holds all tasks.
    """
    read = [_read(folder, allow_pickle) for folder in folders]
    found = {reference_of(files).name: reference_of(files) for files in read}
    if len(found) > 1 and not all(reference.one_task_each for reference in found.values()):
        raise UsageError(f"the adapters are of different methods: {', '.join(sorted(found))}")
    if len(read) > 1 and not all(reference.one_task_each for reference in found.values()):
        raise UsageError(f"a folder of {next(iter(found))} holds all tasks: give one adapter folder")
    return read


def _read(folder: Path, allow_pickle: bool) -> AdapterFiles:
    files = read_folder(folder, allow_pickle=allow_pickle)
    factors = [name for reference in references() for name in reference.factors]
    vectors = [name for reference in references() for name in reference.vectors]
    return plainly_named(files, reference_of(files).part(files.config), factors, vectors)


def name_tasks(files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks by id, named by who gives names, else by the adapter's own files; the unnamed rest are task<i>."""
    count, saved = reference_of(files[0]).count_tasks(files, given)
    names = list(given or saved)
    if len(names) > count:
        raise UsageError(f"{len(names)} tasks are named; the adapter has {count}")
    return tuple(names + [f"task{index}" for index in range(len(names), count)])


def top_k_titles() -> str:
    """The methods that need a top-k, as messages name them."""
    return " and ".join(reference.title for reference in references() if reference.takes_top_k)

"""The trained model of a method whose modules have a router each, from its formula; see `formula.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from eptx.exporter.adapters.routing.route import Route
from eptx.exporter.methods.formula import FormulaLinear, FormulaModel, FormulaReference
from eptx.exporter.methods.tuner import TaskRows
from eptx.exporter.trained.files import AdapterFiles, tasks_by_heads
from eptx.exporter.trained.reference import GivenRoutes

#: A layer's tensors by their names behind the module's, the configuration, rows [batch, positions, in], and what makes
#: of the router's weights [batch, positions, experts] those that count -> what is added to the layer's output.
RoutedFormula = Callable[[Mapping[str, Tensor], Mapping[str, Any], Tensor, Callable[[Tensor], Tensor]], Tensor]


@dataclass(frozen=True)
class Weighed:
    """How a module's router has weighed its experts in a forward, on average over the positions of each row.

    Attributes:
        weights: [batch, experts].
        narrow: by how much experts were chosen before others, [batch]; None where all count.
        group: zeros, int64 [batch]. margin: the same as `narrow`, or infinite.
        affinity: [batch, 1, experts].
    """

    weights: Tensor
    narrow: Tensor | None = None

    @property
    def group(self) -> Tensor:
        return torch.zeros(len(self.weights), dtype=torch.int64)

    @property
    def margin(self) -> Tensor:
        if self.narrow is not None:
            return self.narrow
        return torch.full((len(self.weights),), torch.inf, dtype=self.weights.dtype)

    @property
    def affinity(self) -> Tensor:
        return self.weights[:, None]


class Routers:
    """What an adapter's routers say, and what they are made to say; routers by their numbers.

    Attributes:
        fixed: weights [experts] to use instead of each router's; empty: routers weigh.
    """

    def __init__(self) -> None:
        self.fixed: list[Tensor] = []
        self._seen: dict[int, list[Tensor]] = {}

    def tell(self, routes: GivenRoutes) -> None:
        """Begins a forward: with the fixed weights that are given, and without what routers have said."""
        own = [cast(Route, route).weights for route in routes.calls if route is not None]
        self.fixed = [torch.tensor(weights, dtype=routes.dtype) for weights in own]
        self._seen = {}

    def see(self, number: int, weights: Tensor) -> None:
        """Keeps what a router has said, [batch, positions, experts]; it may run several times."""
        self._seen.setdefault(number, []).append(weights.mean(1))

    @property
    def taken(self) -> list[Weighed]:
        """What they have said, in their order."""
        return [Weighed(torch.stack(self._seen[number]).mean(0)) for number in sorted(self._seen)]


class RoutedRows(TaskRows, Routers):
    """What the layers of one tuner share."""

    def __init__(self, num_tasks: int) -> None:
        TaskRows.__init__(self, num_tasks)
        Routers.__init__(self)


class RoutedLinear(FormulaLinear):
    """A layer whose formula is given, instead of tasks, what makes of a router's weights those that count."""

    def __init__(self, base_layer: Any, name: str, state: Any, config: Any, layer: str, formula: Any) -> None:
        super().__init__(base_layer, name, state, config, layer, formula)
        self.number: int | None = config.routers.get(layer)

    def _update(self, rows: Tensor, ids: Tensor) -> Tensor:
        formula = cast(RoutedFormula, self.formula)
        return formula(self._named(), self.settings, rows, self._weigh)

    def _weigh(self, live: Tensor) -> Tensor:
        """The module's fixed weights where there are some; else the router's, which are noted."""
        state = cast(RoutedRows, self.state)
        assert self.number is not None
        if state.fixed:
            return state.fixed[self.number].to(live.dtype).expand_as(live)
        state.see(self.number, live.detach())
        return live


class RoutedModel(FormulaModel):
    """Puts `RoutedLinear` in place of the targeted layers."""

    tuner_layer_cls = RoutedLinear
    state_cls = RoutedRows


class RoutedReference(FormulaReference):
    """One adapter of all tasks, whose routers know none.

    Attributes:
        router_tensor: a router's, [experts, in], by its name behind the module's.
    """

    router_tensor: ClassVar[str]
    model: ClassVar[type[FormulaModel]] = RoutedModel
    routes_by_module: ClassVar[bool] = True

    def count_tasks(self, files: Sequence[AdapterFiles], given: Sequence[str] | None) -> tuple[int, list[str]]:
        return tasks_by_heads(files[0], given)

    def config(
        self, files: AdapterFiles, names: Mapping[str, str], tasks: Sequence[str], top_k: int | None, saved: Any
    ) -> Any:
        config = super().config(files, names, tasks, top_k, saved)
        config.routers = {names[module]: number for module, number in self.numbers(files, names).items()}
        return config

    def numbers(self, files: AdapterFiles, modules: Collection[str]) -> dict[str, int]:
        """Module -> the number of its router, of those of these modules that have one, in their order."""
        return {module: number for number, module in enumerate(sorted(modules, key=by_number))}

    def routers(self, files: AdapterFiles) -> Mapping[str, int]:
        firsts: dict[int, str] = {}
        for module, number in self.numbers(files, self.modules(files)).items():
            firsts.setdefault(number, module)
        shapes = files.shapes(f".{self.router_tensor}")
        return {module: shapes[module][0] for module in firsts.values()}

    def tell(self, state: Any, ids: Tensor, routes: GivenRoutes) -> None:
        super().tell(state, ids, routes)
        state.tell(routes)


def by_number(module: str) -> list[tuple[bool, int, str]]:
    """Bundles have the modules' routes in this order: layer 2 before layer 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", module)]

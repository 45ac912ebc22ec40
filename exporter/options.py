"""What one export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eptx.errors import UsageError
from eptx.exporter.attach import Mode, Routing
from eptx.exporter.base import Precision
from eptx.exporter.route import Route

Provider = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Settings of an export.

    Attributes:
        mode: "static" (one task in the weights), "conditioned" (``task_id`` picks a frozen route per row) or
            "dynamic" (the routers are in the graph).
        task: static: the task to fold; may be left out when there is only one.
        tasks: names of the tasks, by id.
        top_k: EPT: how many experts a task uses, where the configuration does not say it.
        routing: TuckA, dynamic: "batch" (as released), "row", or, where text is generated, "prompt".
        routes: TuckA, static and conditioned: the frozen route of each task; the key None serves every other task.
        route_report: how the routes were measured and how far they are from the live ones, for the manifest.
        precision: how weights are stored: "fp32", "fp16", or, of decoders, "int4" (in blocks).
        provider: the execution provider that the graph's fusions are for.
        base_onnx: an existing ONNX file of the base, instead of exporting one.
        module_map: module name -> node or initializer of the base graph, for modules that cannot be found.
    """

    mode: Mode
    task: str | None = None
    tasks: Sequence[str] | None = None
    top_k: int | None = None
    routing: Routing = "batch"
    routes: Mapping[str | None, Route] = field(default_factory=dict)
    route_report: Mapping[str, object] | None = None
    precision: Precision = "fp32"
    provider: Provider = "cpu"
    base_onnx: Path | None = None
    module_map: Mapping[str, str] | None = None

    def check(self) -> None:
        """Compares the settings with each other.

        Raises:
            UsageError: two of them contradict each other.
        """
        if self.module_map and not all(isinstance(name, str) for name in self.module_map.values()):
            raise UsageError("the module map must map a module's name to the name of a node or initializer")
        if self.task is not None and self.mode != "static":
            raise UsageError(f"--task is for --mode static; --mode {self.mode} holds every task")
        if self.routes and self.mode == "dynamic":
            raise UsageError("--route freezes a route; --mode dynamic computes it: leave one of them out")
        if self.routing != "batch" and self.mode != "dynamic":
            raise UsageError(f"--routing is for --mode dynamic; --mode {self.mode} has a frozen route")

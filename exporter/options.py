"""What one export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from eptx.bundle import Manifest
from eptx.errors import UsageError
from eptx.exporter.adapters.routing.route import Frozen, Route
from eptx.manifest.names import BASE_TASK, PROBLEM_TYPES
from eptx.runtime.ort.releases import asked_release

Mode = Literal["static", "conditioned", "dynamic"]
Routing = Literal["batch", "row", "prompt"]
Provider = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "int8", "int8-static", "int4"]
#: What a manifest says; "mixed" is what a search finds.
StoredPrecision = Precision | Literal["mixed"]


class PrecisionSearch:
    """A precision that is found on data: `eptx.calibration.Search`, of which an exporter knows nothing."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Settings of an export.

    Attributes:
        mode: "static" (one task in the weights), "conditioned" (``task_id`` picks a frozen route per row) or
            "dynamic" (the routers are in the graph).
        task: static: the task to fold; may be left out when there is only one.
        tasks: names of the tasks, by id.
        problem_types: task -> how its logits are read, where it is not as the base's configuration says: "regression",
            "single_label_classification" or "multi_label_classification".
        labels: task -> the names of its labels by number, where the files do not name them; the key None is for the
            only task.
        model_class: the transformers class, or Auto class, to export the base as, where the adapter's files do not
            decide it or another is wanted: "AutoModel" leaves out a head.
        top_k: how many experts a task uses, where the configuration does not say it.
        routing: dynamic, where the adapter has one route for all modules: "batch" (as released), "row", or, where text
            is generated, "prompt".
        routes: static and conditioned, where the route depends on the data: the frozen route of each task, or where the
            base calls the router several times one for each call that routes by the data; the key None serves every
            other task.
        route_report: how the routes were measured and how far they are from the live ones, for the manifest.
        precision: how weights are stored: "fp32"; "fp16"; "int8", activations rounded to 8 bits as they come;
            "int8-static", to a range that data gives; "int4", in blocks; or a search on data. It also finds the frozen
            routes that `routes` lacks.
        provider: the execution provider that the graph's fusions are for.
        min_ort: a release of ONNX Runtime, such as "1.17", that must load the bundle.
        base_onnx: an existing ONNX file of the base, instead of exporting one.
        module_map: module name -> node or initializer of the base graph, for modules that cannot be found.
        allow_pickle: whether an adapter's ``adapter_model.bin`` is read, by torch's ``weights_only`` loader.
    """

    mode: Mode
    task: str | None = None
    tasks: Sequence[str] | None = None
    problem_types: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str | None, Sequence[str]] = field(default_factory=dict)
    model_class: str | None = None
    top_k: int | None = None
    routing: Routing = "batch"
    routes: Mapping[str | None, Route | Frozen] = field(default_factory=dict)
    route_report: Mapping[str, object] | None = None
    precision: Precision | PrecisionSearch = "fp32"
    provider: Provider = "cpu"
    min_ort: str | None = None
    base_onnx: Path | None = None
    module_map: Mapping[str, str] | None = None
    allow_pickle: bool = False

    def check(self) -> None:
        """Compares the settings with each other.

        Raises:
            UsageError: two of them contradict each other.
        """
        if self.module_map and not all(isinstance(name, str) for name in self.module_map.values()):
            raise UsageError("the module map must map a module's name to the name of a node or initializer")
        wrong = next((kind for kind in self.problem_types.values() if kind not in PROBLEM_TYPES), None)
        if wrong is not None:
            raise UsageError(f"--problem-type {wrong!r}: choose from {', '.join(PROBLEM_TYPES)}")
        if self.model_class is not None and self.base_onnx is not None:
            raise UsageError("--model-class is for a transformers folder; the file of --base-onnx has its class")
        if self.min_ort is not None:
            asked_release(self.min_ort)
        if self.task is not None and self.mode != "static":
            raise UsageError(f"--task is for --mode static; --mode {self.mode} holds every task")
        if self.routes and self.mode == "dynamic":
            raise UsageError("--route freezes a route; --mode dynamic computes it: leave one of them out")
        if self.routing != "batch" and self.mode != "dynamic":
            raise UsageError(f"--routing is for --mode dynamic; --mode {self.mode} has a frozen route")

    def folded_task(self, tasks: Sequence[str]) -> str:
        """The task that a static export folds, of those of an adapter.

        Raises:
            UsageError: it is missing or unknown.
        """
        if self.task is None:
            if len(tasks) == 1:
                return tasks[0]
            raise UsageError(f"--mode static folds one task: give --task, one of {', '.join(tasks)}")
        if self.task == BASE_TASK:
            raise UsageError("a static bundle of the task base would be the base model itself; export that instead")
        if self.task not in tasks:
            raise UsageError(f"unknown task {self.task!r}; the adapter has {', '.join(tasks)}")
        return self.task


def options_of(manifest: Manifest) -> ExportOptions:
    """The options of the export that made a bundle, but the precision, and the ONNX file of the base."""
    routes = (manifest.route or {}).get("tasks", {})
    static = manifest.mode == "static"
    return ExportOptions(
        mode=cast(Mode, manifest.mode),
        task=manifest.tasks[0].name if static else None,
        tasks=manifest.sources.tasks,
        problem_types=manifest.sources.problem_types or {},
        labels=dict(list((manifest.sources.label_names or {}).items())),
        model_class=manifest.sources.model_class,
        min_ort=manifest.sources.min_ort,
        top_k=manifest.sources.top_k,
        routing=cast(Routing, manifest.routing or "batch"),
        routes={
            task: tuple(Route(route["group"], tuple(route["weights"])) for route in frozen)
            for task, frozen in routes.items()
        },
        provider=cast(Provider, manifest.provider),
    )

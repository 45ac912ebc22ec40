"""Which experts each task uses, drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from eptx.exporter.methods.ept.adapter import EptAdapter
from eptx.exporter.methods.ept.fold import route


def plot(adapter: EptAdapter) -> Any:
    """A matplotlib figure of tasks x experts: how much of each expert a task uses, averaged over the modules."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.4 * len(adapter.tasks)), layout="constrained")
    axes = figure.subplots()
    usage, sizes = expert_usage(adapter)
    image = axes.imshow(usage, cmap="viridis", aspect="auto", vmin=0)
    axes.set_xticks(range(usage.shape[1]), [f"{e}\n{size}" for e, size in enumerate(sizes)])
    axes.set_yticks(range(len(adapter.tasks)), adapter.tasks)
    axes.set_xlabel("expert, and its kernel size")
    axes.set_title(f"mean weight over {len(adapter.modules)} modules, top {adapter.top_k}")
    figure.colorbar(image, ax=axes)
    return figure


def expert_usage(adapter: EptAdapter) -> tuple[np.ndarray, list[str]]:
    """Mean weight [tasks, experts] over the modules, and each expert's kernel size ("*" where modules differ)."""
    most = max(len(module.kernels) for module in adapter.modules.values())
    usage = np.zeros((len(adapter.tasks), most))
    for module in adapter.modules.values():
        for task in range(len(adapter.tasks)):
            experts, weights = route(module, task, adapter.top_k)
            usage[task, experts] += weights
    sizes = [{m.sizes[e] for m in adapter.modules.values() if e < len(m.sizes)} for e in range(most)]
    return usage / len(adapter.modules), [str(size.pop()) if len(size) == 1 else "*" for size in sizes]

"""What an adapter holds, for ``eptx inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eptx.errors import UsageError
from eptx.exporter.adapters.adapter import Adapter
from eptx.exporter.methods.method import method_of


def adapter_facts(adapter: Adapter) -> dict[str, Any]:
    """Method, tasks, modules with ranks and experts, parameters and bytes, as JSON types."""
    heads = adapter.heads
    count = adapter.parameters()
    return {
        "method": adapter.method,
        "fingerprint": adapter.fingerprint,
        "tasks": list(adapter.tasks),
        "parameters": count,
        "bytes_fp32": 4 * count,
        "task_heads": {task: heads.labels(task) for task in heads.weights} if heads else None,
        **adapter.describe(),
    }


def plot_experts(adapter: Adapter, file: Path) -> None:
    """Draws which experts each task uses.

    Raises:
        NotSupportedError: the adapter has no experts per task.
        UsageError: the file cannot be written.
    """
    figure = method_of(adapter.method).plot(adapter)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be written: {error}") from None

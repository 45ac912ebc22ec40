"""The ``onnxruntime`` module, and what an ``InferenceSession`` is told about an execution provider."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from eptx._one_line import one_line
from eptx.errors import NotSupportedError
from eptx.providers import CPU, PROVIDERS, keep_private

#: The session entry that has ONNX Runtime remember which provider it gave each node to.
REMEMBER_NODES = {"session.record_ep_graph_assignment_info": "1"}
_NAMES = {provider.ort_name: name for name, provider in PROVIDERS.items()}


def onnxruntime() -> Any:
    """The ``onnxruntime`` module.

    Raises:
        NotSupportedError: it is not installed.
    """
    keep_private()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as e:
        raise NotSupportedError(
            f"ONNX Runtime cannot be imported ({one_line(e)}); pip install 'eptx[cpu]' or 'eptx[gpu]'"
        ) from None


def is_built_in(provider: str) -> bool:
    """Whether the installed ONNX Runtime is built with a provider."""
    return PROVIDERS[provider].ort_name in onnxruntime().get_available_providers()


def execution_providers(provider: str, threads: int | None = None) -> list[Any]:
    """The ``providers`` argument of an ``onnxruntime.InferenceSession``.

    Args:
        provider: eptx's name of it.
        threads: how many threads one operator may use; None lets the provider choose.
    """
    chosen, cpu = PROVIDERS[provider], PROVIDERS[CPU].ort_name
    if chosen.ort_name == cpu:
        return [cpu]
    own = {} if threads is None or chosen.threads is None else {chosen.threads: str(threads)}
    return [(chosen.ort_name, {**chosen.options, **own}), cpu]


def has_started(session: Any, provider: str) -> bool:
    """Whether a session has a provider: ONNX Runtime goes on without one that does not start."""
    return PROVIDERS[provider].ort_name in session.get_providers()


def nodes_by_provider(session: Any) -> dict[str, int] | None:
    """How many of a model's nodes run on which provider; None if ONNX Runtime does not say."""
    found = operators_by_provider(session)
    return None if found is None else {name: operators.total() for name, operators in found.items()}


def operators_by_provider(session: Any) -> dict[str, Counter[str]] | None:
    """The operators of a model's nodes by the provider that runs them; None if ONNX Runtime does not say.

    Args:
        session: opened with the entry `REMEMBER_NODES`.
    """
    try:
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # an ONNX Runtime before 1.24, or a session without the entry
        return None
    found: dict[str, Counter[str]] = {}
    for part in parts:
        operators = found.setdefault(_NAMES.get(part.ep_name, part.ep_name), Counter())
        operators.update(node.op_type for node in part.get_nodes())
    return found or None


def describe_nodes(nodes: Mapping[str, int]) -> str:
    """``1428 nodes on openvino, 4 on cpu``, the provider with the most first."""
    first, *others = sorted(nodes.items(), key=lambda item: -item[1])
    return ", ".join([f"{first[1]} nodes on {first[0]}", *(f"{count} on {name}" for name, count in others)])

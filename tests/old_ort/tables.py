"""The tables of releases, compared with what a release says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eptx.runtime.ort.contrib import operator_needs
from eptx.runtime.ort.releases import IR_VERSIONS, OPSETS, Release, read_release


def wrong_in_tables(facts: Mapping[str, Any]) -> Iterator[str]:
    """Where the tables and a release disagree.

    Args:
        facts: what `facts.py` says in it.
    """
    release = read_release(facts["version"])
    assert release is not None
    for name, table in (("ir_version", IR_VERSIONS), ("opset", OPSETS)):
        newest = max(version for first, version in table.items() if first <= release)
        if newest != facts[name]:
            yield f"{name}: the table has {newest}, it loads {facts[name]}"
    for operator, found in (facts["operators"] or {}).items():
        yield from _wrong_operator(operator, found, release)


def _wrong_operator(operator: str, found: Mapping[str, Any], release: Release) -> Iterator[str]:
    names, inputs = found["attributes"], min(found["inputs"], 99)
    needs = operator_needs(operator, names, inputs, "cpu" if found["cpu"] else "cuda")
    if needs is None:
        yield f"{operator}: the table does not know it"
        return
    yield from (f"{what}: the table says {first}, and it is there" for what, first in needs.items() if first > release)
    more = operator_needs(operator, [], inputs + 1, "cuda")
    assert more is not None
    extra = max(first for what, first in more.items())
    if found["inputs"] < 99 and extra < release and len(more) > len(operator_needs(operator, [], inputs, "cuda") or ()):
        yield f"{operator}: the table allows more than {inputs} inputs from {extra} on"
    if not found["cpu"] and (first := operator_needs(operator, [], 0, "cpu")) and len(first) > 1:
        if max(first.values()) <= release:
            yield f"{operator}: the table has a kernel for CPUs, it has none"

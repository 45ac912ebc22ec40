"""The tables of releases, compared with what a release says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eptx.runtime.ort.contrib import ATTRIBUTES, INPUTS, ON_CPU, SINCE
from eptx.runtime.ort.releases import IR_VERSIONS, OPSETS, Release, read_release

Facts = Mapping[str, Any]


def wrong_in_tables(facts: Facts, before: Facts | None) -> Iterator[str]:
    """Where the tables and a release disagree.

    Args:
        facts: what `facts.py` says in it.
        before: the same of an older release that shows its operators too.
    """
    release = read_release(facts["version"])
    assert release is not None
    for name, table in (("ir_version", IR_VERSIONS), ("opset", OPSETS)):
        newest = max(version for first, version in table.items() if first <= release)
        if newest != facts[name]:
            yield f"{name}: the table has {newest}, it loads {facts[name]}"
    found = facts["operators"]
    if found is None:
        return
    known = {operator for operator, first in SINCE.items() if first <= release}
    yield from (f"{operator}: is in the table or the release alone" for operator in sorted(known ^ found.keys()))
    for operator in sorted(known & found.keys()):
        yield from _wrong_operator(operator, found[operator], release)
        if before is not None and operator in before["operators"]:
            new = {*found[operator]["attributes"]} - {*before["operators"][operator]["attributes"]}
            unknown = new - ATTRIBUTES.get(operator, {}).keys()
            yield from (f"{operator}: {name} is new, and not in the table" for name in sorted(unknown))


def _wrong_operator(operator: str, found: Facts, release: Release) -> Iterator[str]:
    said = {name: (first, name in found["attributes"]) for name, first in ATTRIBUTES.get(operator, {}).items()}
    said |= {f"{n} inputs": (first, found["inputs"] >= n) for n, first in INPUTS.get(operator, {}).items()}
    if operator in ON_CPU:
        said["a kernel for CPUs"] = (ON_CPU[operator], found["cpu"])
    for what, (first, has) in said.items():
        if (first <= release) != has:
            yield f"{operator}: the table has {what} from {first} on; the release {'has' if has else 'lacks'} it"

"""Routes in ``eptx.json`` that are not of the adapter's routers: refused in one line, whatever the graph computes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.exporter.validation.conftest import Cli
from tests.exporter.validation.wrong.bases import Bases
from tests.exporter.validation.wrong.edits import JsonChange, manifest


def _cut(route: dict[str, Any]) -> None:
    route["modules"].pop()
    for frozen in route["tasks"].values():
        frozen.pop()


def _turned(route: dict[str, Any]) -> None:
    route["modules"].reverse()


def _narrow(route: dict[str, Any]) -> None:
    route["tasks"]["x"][0]["weights"].pop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, "eptx.json: route.modules are not those that route in the adapter: bert.encoder.layer.0.intermediate"),
        (_turned, "eptx.json: route.modules are not those that route in the adapter: bert.encoder.layer.0"),
        (_narrow, "task x at bert.encoder.layer.0.intermediate.dense has 3 weights; the adapter has 4 experts there"),
    ],
)
def test_other_routes_than_the_adapters(bases: Bases, cli: Cli, change: JsonChange, said: str) -> None:
    folder = bases.copy("bert mixlora frozen", manifest(lambda value: change(value["route"])))
    code, _, err = cli("validate", "-q", folder, "--provider", "cpu")
    assert code == 3 and said in err and len(err.splitlines()) == 1

"""JavaScript's scan of graphs finds what Python's finds, and what a protocol-buffer library reads, in any bytes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from eptx.bundle.onnx_scan import OnnxScan, scan_bytes
from eptx.errors import BundleError
from tests.eptx.wire import as_protobuf_reads, corpus, whole_model
from tests.examples.web import WEB, needs_node

pytestmark = needs_node

COUNT = 4000
_SCAN = """
import { readFileSync } from "node:fs";
import { scan } from "./public/proof/scan.js";
const data = readFileSync(0);
for (let at = 0; at < data.length;) {
  const end = at + 4 + data.readUInt32LE(at);
  let line;
  try {
    const { domains, operators, functions, external } = scan(data.subarray(at + 4, end));
    const weights = external.map(({ location, offset, length }) => [location, String(offset), String(length ?? -1)]);
    line = [[...domains], operators, functions, weights];
  } catch (error) {
    line = error.message;
  }
  console.log(JSON.stringify(line));
  at = end;
}
"""


def comparable(scan: OnnxScan) -> list[Any]:
    """A scan as the program prints it, without the versions of opsets, which no check in JavaScript reads."""
    external = [[e.location, str(e.offset), str(-1 if e.length is None else e.length)] for e in scan.external]
    domains = {domain for domain, _ in scan.opsets} | {domain for domain, _ in scan.operators}
    return [
        sorted(domains),
        *(sorted(map(list, pairs)) for pairs in (scan.operators, scan.functions)),
        sorted(external),
    ]


def test_mutated_models() -> None:
    models = [whole_model(), *corpus(COUNT, 3)]
    done = subprocess.run(
        ["node", "--input-type=module", "-e", _SCAN],
        cwd=WEB,
        input=b"".join(len(model).to_bytes(4, "little") + model for model in models),
        capture_output=True,
        check=True,
        timeout=120,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(models)
    both = 0
    for model, scan in zip(models, found, strict=True):
        if isinstance(scan, str):
            with pytest.raises(BundleError):
                scan_bytes(model)
            continue
        scan = [sorted(scan[0]), *(sorted(map(list, {*map(tuple, pairs)})) for pairs in scan[1:3]), sorted(scan[3])]
        assert scan == comparable(scan_bytes(model)), model.hex()
        try:
            wanted = as_protobuf_reads(model)
        except ValueError:
            continue  # nobody can load it
        assert scan == comparable(wanted), model.hex()
        both += 1
    assert both > COUNT / 10

"""What the scan lets through, it reads as a protocol-buffer library does, whatever the bytes are."""

from __future__ import annotations

import pytest

from eptx.bundle.onnx_scan import OnnxScan, scan_bytes
from eptx.errors import BundleError
from tests.eptx.wire import as_protobuf_reads, corpus, whole_model

COUNT = 12_000


def comparable(scan: OnnxScan) -> tuple[object, ...]:
    """A scan without the order in which the weights came."""
    external = sorted((e.location, e.offset, -1 if e.length is None else e.length) for e in scan.external)
    return sorted(scan.opsets), sorted(scan.operators), sorted(scan.functions), external


def test_the_model_itself() -> None:
    scan = scan_bytes(whole_model())
    assert comparable(scan) == comparable(as_protobuf_reads(whole_model()))
    assert len({e.location for e in scan.external}) == 10
    assert {("", "Start"), ("", "Step"), ("com.microsoft", "FusedMatMul")} < scan.operators


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_models(seed: int) -> None:
    both = refused = 0
    for data in corpus(COUNT, seed):
        try:
            scan = scan_bytes(data)
        except BundleError:
            refused += 1
            continue
        try:
            wanted = as_protobuf_reads(data)
        except ValueError:
            continue  # nobody can load it
        assert comparable(scan) == comparable(wanted), data.hex()
        both += 1
    assert both > COUNT / 10
    assert refused > COUNT / 10

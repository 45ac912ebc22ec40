"""Files with a few bytes changed, cut or put in: an export succeeds or is refused, and never fails in another way."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eptx.calibration import export_bundle
from eptx.errors import EptxError
from eptx.exporter import ExportOptions
from tests.malformed.breaks import CONFIG, HEADS, WEIGHTS
from tests.malformed.scene import Scene, copy_scene

FILES = [*(f"{a}/{f}" for a in ("ept", "tucka", "lora") for f in (CONFIG, WEIGHTS)), f"ept/{HEADS}", "base.onnx"]
OPTIONS = {"ept": {"mode": "conditioned", "top_k": 2}, "tucka": {"mode": "dynamic"}, "lora": {"mode": "conditioned"}}


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Flips bits, cuts a stretch out, or puts bytes in, at places given as fractions of the size."""
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3))
    bit, inserted = draw(st.integers(0, 7)), draw(st.binary(max_size=6))
    kind = draw(st.sampled_from(["flip", "flip", "insert", "cut", "end"]))

    def mutate(data: bytes) -> bytes:
        at = [int(place * len(data)) for place in places]
        if kind == "end":
            return data[: at[0]]
        if kind == "insert":
            return data[: at[0]] + inserted + data[at[0] :]
        if kind == "cut":
            return data[: min(at)] + data[max(at) :]
        changed = bytearray(data)
        for i in at:
            changed[i] ^= 1 << bit
        return bytes(changed)

    return mutate


@pytest.fixture(scope="module")
def shared(pristine: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield copy_scene(pristine, tmp_path_factory.mktemp("flips") / "scene")


@settings(max_examples=120)
@given(name=st.sampled_from(FILES), mutate=mutations(), in_header=st.booleans(), beside=st.booleans())
def test_any_change(shared: Scene, name: str, mutate: Callable[[bytes], bytes], in_header: bool, beside: bool) -> None:
    path = shared.root / name
    sound = path.read_bytes()
    adapter = name.partition("/")[0] if "/" in name else "ept"
    path.write_bytes(_mutated(path, sound, mutate, in_header))
    options = ExportOptions(**OPTIONS[adapter], base_onnx=shared.onnx)  # type: ignore[arg-type]
    try:
        export_bundle(shared.base if beside else None, [shared.root / adapter], shared.out / "b", options)
    except EptxError as e:
        assert len(str(e).splitlines()) == 1
        assert e.exit_code in (2, 3, 5, 6)
    finally:
        path.write_bytes(sound)
    assert {entry.name for entry in shared.out.iterdir()} <= {"b", "b.sources.json"}


def _mutated(path: Path, data: bytes, mutate: Callable[[bytes], bytes], in_header: bool) -> bytes:
    """Of a safetensors file, the header alone with its length made right, or all of it."""
    if path.suffix != ".safetensors" or not in_header:
        return mutate(data)
    size = struct.unpack("<Q", data[:8])[0]
    header = mutate(data[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + data[8 + size :]

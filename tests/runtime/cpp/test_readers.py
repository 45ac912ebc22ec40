"""The readers of libeptx are as strict as Python's: the same tables, and the same verdict on mutated bundles."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eptx
from eptx.errors import EptxError
from tests.eptx import test_json, test_onnx_scan
from tests.eptx.test_bundle import change_any_field
from tests.malformed.bundles import test_generation
from tests.malformed.bundles.test_bundles import relist
from tests.runtime.cpp.library import NativeError, Session, load
from tests.runtime.cpp.verdicts import mend_unused, verdict
from tests.support.tiny_bundle import tiny_model, write_tiny

DAMAGED_JSON = test_json.test_refused.pytestmark[0].args[1]
DAMAGED_MODELS = test_onnx_scan.test_damaged.pytestmark[0].args[1]
MODEL = tiny_model().SerializeToString()


decoders = test_generation.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load()
    return write_tiny(tmp_path_factory.mktemp("bundles") / "bundle").path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "bundle"))


def _refuses(bundle: Path) -> None:
    with pytest.raises(NativeError) as e:
        Session(bundle)
    assert e.value.status == 3


@pytest.mark.parametrize("text", [text for text, _ in DAMAGED_JSON])
def test_json(copy: Path, text: bytes) -> None:
    (copy / "config.json").write_bytes(text)
    relist(copy)
    _refuses(copy)
    (copy / "eptx.json").write_bytes(text)
    _refuses(copy)


@pytest.mark.parametrize("data", [data for data, _ in DAMAGED_MODELS if data])
def test_models(copy: Path, data: bytes) -> None:
    (copy / "model.onnx").write_bytes(data)
    relist(copy)
    _refuses(copy)


def _is_unassigned(bundle: Path) -> bool:
    text = json.dumps(json.loads((bundle / "eptx.json").read_text()), ensure_ascii=False)  # without its escapes
    return any(unicodedata.category(char) == "Cn" for char in text)


def _python(bundle: Path) -> int:
    """Python's verdict on opening a bundle.

    libeptx accepts characters that Unicode has not assigned. Which ones Python accepts depends on its version.
    """
    try:
        eptx.Session(bundle, threads=1, verify=False)
    except EptxError as e:
        return 0 if "cannot be printed" in str(e) and _is_unassigned(bundle) else e.exit_code
    return 0


def _check_verdicts(bundle: Path, sound: Path) -> None:
    native = verdict(lambda: Session(bundle, verify=False))
    mend_unused(bundle, sound)
    assert native == _python(bundle)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_field_changed(folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    value: Any = json.loads((folder / "eptx.json").read_text())
    change_any_field(value, data)
    bundle = tmp_path_factory.mktemp("changed") / "bundle"
    shutil.copytree(folder, bundle)
    (bundle / "eptx.json").write_text(json.dumps(value))  # with infinity, if drawn
    _check_verdicts(bundle, folder)
    shutil.rmtree(bundle)


#: fields that a classifier's manifest does not have
OF_DECODERS = ("generation", "encoder", "routing", "inputs", "outputs", "vocab_size", "max_length")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_field_of_a_decoder_changed(
    decoders: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source = decoders / data.draw(st.sampled_from(("ept", "tucka")))
    value: Any = json.loads((source / "eptx.json").read_text())
    part = {key: value[key] for key in OF_DECODERS}
    change_any_field(part, data)
    bundle = tmp_path_factory.mktemp("changed") / "bundle"
    shutil.copytree(source, bundle)
    (bundle / "eptx.json").write_text(json.dumps(value | part))
    _check_verdicts(bundle, source)
    shutil.rmtree(bundle)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(MODEL) - 1), st.integers(1, 255))
def test_any_byte_of_the_model_changed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    bundle = tmp_path_factory.mktemp("flipped") / "bundle"
    shutil.copytree(folder, bundle)
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[at % len(model)] ^= flip
    (bundle / "model.onnx").write_bytes(model)
    _check_verdicts(bundle, folder)
    shutil.rmtree(bundle)


def test_a_byte_order_mark_is_passed_over(copy: Path) -> None:
    (copy / "eptx.json").write_bytes(b"\xef\xbb\xbf" + (copy / "eptx.json").read_bytes())
    Session(copy)
    eptx.Session(copy, threads=1)

"""Strict JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eptx.errors import BundleError
from eptx.files.strict_json import dump_json, parse_json, read_json, read_json_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' appears twice"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"1e999", "'1e999' is out of range"),
        (b"1" * 5000, "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'"\xff"', "not UTF-8"),
        ("\ufeff\ufeff{}".encode(), "not valid JSON"),
        ('{"a": "\ufeff"} \ufeff'.encode(), "not valid JSON"),
        ("{}".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("{}".encode("utf-16-le"), "UTF-16 text; save it as UTF-8"),
        ("{}".encode("utf-16-be"), "UTF-16 text; save it as UTF-8"),
    ],
)
def test_refused(text: bytes, said: str) -> None:
    with pytest.raises(BundleError) as e:
        parse_json(text, what="x.json", error=BundleError)
    assert said in str(e.value)
    assert str(e.value).startswith("x.json: ")
    assert "\n" not in str(e.value)


def test_a_byte_order_mark_is_passed_over() -> None:
    """RFC 8259, 8.1: a reader may ignore it."""
    assert parse_json("\ufeff".encode() + b'{"a": "\xef\xbb\xbf"}', what="x", error=BundleError) == {"a": "\ufeff"}


@given(VALUES)
def test_round_trip(value: object) -> None:
    data = dump_json(value)
    assert parse_json(data, what="x", error=BundleError) == value
    assert dump_json(json.loads(data)) == data


@given(st.binary(max_size=200))
def test_bytes_never_crash(data: bytes) -> None:
    try:
        parse_json(data, what="x", error=BundleError)
    except BundleError as e:
        assert "\n" not in str(e)


def test_same_bytes_for_the_same_value() -> None:
    assert dump_json({"b": [1, "é"], "a": None}) == '{\n "a": null,\n "b": [\n  1,\n  "é"\n ]\n}\n'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        dump_json(float("nan"))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    assert read_json(path, error=BundleError) == [1]
    with pytest.raises(BundleError, match=r"^x.json: larger than 2 bytes$"):
        read_json(path, error=BundleError, limit=2)
    with pytest.raises(BundleError, match=r"^x.json: must hold a JSON object$"):
        read_json_object(path, error=BundleError)
    with pytest.raises(BundleError, match=r"^y.json: cannot be read: No such file"):
        read_json(tmp_path / "y.json", error=BundleError)

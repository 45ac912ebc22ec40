"""How large an answer may be, and what JSON cannot say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eptx.bundle import TensorSpec
from eptx.errors import RequestError
from eptx.runtime.serving.limits import Limits
from eptx.runtime.serving.models.postprocess import choose_outputs, fit_limits
from eptx.runtime.serving.models.preprocess import Preprocessed
from eptx.runtime.serving.protocol.infer import InferRequest, encode_response, parse_request
from tests.support.tiny_bundle import tiny_manifest

WRITER = tiny_manifest(outputs=(TensorSpec("logits", "float32", ("batch", "length", 49152)),))


def test_a_language_model_reads_fewer_tokens_in_one_run() -> None:
    assert fit_limits(Limits(), tiny_manifest()).max_tokens == 16384
    assert fit_limits(Limits(), WRITER).max_tokens == (512 << 20) // (4 * 49152)


def test_large_answers_are_binary() -> None:
    rows = Preprocessed({}, rows=2, length=100, task="any", text=False)
    with pytest.raises(RequestError, match="would hold 9830400 numbers as JSON; ask for binary data"):
        choose_outputs(InferRequest({}, {}), WRITER, rows)
    assert choose_outputs(InferRequest({}, {}, binary=True), WRITER, rows) == ("logits",)
    assert choose_outputs(InferRequest({}, {}, outputs={"task": None}), WRITER, rows) == ("task",)


def test_null_stands_for_what_json_has_no_number_for() -> None:
    values = np.array([[1.5, np.nan], [np.inf, -2]], np.float32)
    body, length = encode_response({}, {"x": values}, InferRequest({}, {}))
    assert length is None
    assert json.loads(body)["outputs"][0] == {
        "name": "x",
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [1.5, None, None, -2.0],
    }


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "int32", "uint64", "float16", "float64"])
@pytest.mark.parametrize("binary", [True, False])
def test_every_type_comes_back_as_it_went(dtype: str, binary: bool) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    body, length = encode_response({}, {"x": values}, InferRequest({}, {}, binary=binary))
    head = json.loads(body[:length])
    request = json.dumps({"inputs": head["outputs"]}).encode()
    header = str(len(request)) if length is not None else None
    got = parse_request(request + body[length or len(body) :], header).inputs["x"]
    np.testing.assert_array_equal(got, values, strict=True)


def test_texts_come_back_as_they_went() -> None:
    texts = ["", "a good film", "naïve ☃", "line\nbreak"]
    body, length = encode_response({}, {"x": texts}, InferRequest({}, {}, binary=True))
    assert length is not None
    request = json.dumps({"inputs": json.loads(body[:length])["outputs"]}).encode()
    got = parse_request(request + body[length:], str(len(request))).inputs["x"]
    assert [element.decode() for element in got] == texts

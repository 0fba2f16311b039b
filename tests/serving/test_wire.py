"""TensorFlow Serving's REST format: what a request may hold, and what an answer looks like."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

wire = pytest.importorskip("tf_detreg.serving.wire", reason="the extra `serve` is not installed")

from tf_detreg.serving.problem import BadRequest  # noqa: E402 - needs the extra as well

BOTH = {"image": tf.TensorSpec((None, 2), tf.float32), "count": tf.TensorSpec((None,), tf.int32)}
IMAGE, COUNT = {"image": BOTH["image"]}, {"count": BOTH["count"]}
TEXT = {"image_bytes": tf.TensorSpec((None,), tf.string)}
LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ([{"image": [1, 2], "count": 3}, {"count": 5, "image": [3, 4]}], True),
        ({"count": [3, 5], "image": [[1, 2], [3, 4]]}, False),
    ],
    ids=["rows", "columns"],
)
def test_several_inputs_come_by_name(content, rows):
    found = wire.arrays(content, rows, BOTH)
    assert found["image"].tolist() == [[1, 2], [3, 4]] and found["count"].tolist() == [3, 5]
    assert (found["image"].dtype, found["count"].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("content", "rows", "specs", "message"),
    [
        ([{"image": [1, 2], "count": 3}, [3, 4]], True, BOTH, r"name the inputs \['count', 'image'\] and no others"),
        ([{"image": [1, 2], "count": 3}, {"image": [1, 2]}], True, BOTH, "and no others"),
        ([{"image": [1, 2], "count": 3, "more": 1}], True, BOTH, "and no others"),
        ({"image": [[1, 2]]}, False, BOTH, r"'inputs' must name \['count', 'image'\]; received \['image'\]"),
        ([[1, 2]], True, BOTH, r"several inputs, name them: \['count', 'image'\]"),
        ([], True, BOTH, "several inputs"),
        ({"image": [[1, 2], [3, 4]], "count": [1]}, False, BOTH, "the same number of rows"),
        ([[1, 2, 3]], True, IMAGE, r"'image' has the shape \[1, 3\], expected \[None, 2\]"),
        ([1, 2], True, IMAGE, r"has the shape \[2\]"),
        ([[1, 2], [3]], True, IMAGE, r"ragged: every row must have the shape \[2\]"),
        ([["a", "b"]], True, IMAGE, "must hold numbers; received 'U' values"),
        ([1.5], True, COUNT, "'count' must hold whole numbers"),
        ([2**31], True, COUNT, "a number that int32 cannot"),
        ([-(2**31) - 1], True, COUNT, "a number that int32 cannot"),
        ([[0, 1.01 * LARGEST]], True, IMAGE, "a number that float32 cannot"),
        ([[-1.01 * LARGEST, 0]], True, IMAGE, "a number that float32 cannot"),
        ("abc", False, TEXT, "must be a list of strings"),
        ({"b64": "YQ=="}, False, TEXT, "must be a list of strings"),
        ([1], True, TEXT, "must be a string or"),
        ([{"b64": 1}], True, TEXT, "must be a string or"),
        (["a", {"b64": "YQ==", "more": ""}], True, TEXT, "must be a string or"),
        ([{"b64": "?"}], True, TEXT, "is not valid base64"),
    ],
)
def test_what_does_not_fit_is_named(content, rows, specs, message):
    with pytest.raises(BadRequest, match=message):
        wire.arrays(content, rows, specs)


def test_the_largest_and_the_smallest_numbers_pass():
    assert wire.arrays([2**31 - 1, -(2**31)], True, COUNT)["count"].tolist() == [2**31 - 1, -(2**31)]
    (found,) = wire.arrays([[LARGEST, -LARGEST], [math.nan, -math.inf]], True, IMAGE).values()
    np.testing.assert_array_equal(found, np.float32([[LARGEST, -LARGEST], [np.nan, -np.inf]]))
    assert wire.arrays([], True, IMAGE)["image"].shape == (0, 2)


def test_bytes_come_in_base64_and_texts_as_they_are():
    # The second is without its padding, and broken into lines.
    content = [{"b64": "YQ=="}, {"b64": "YW\nI"}, "ä"]
    assert wire.arrays(content, True, TEXT)["image_bytes"].tolist() == [b"a", b"ab", "ä".encode()]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSON Parse error"),
        (b'{"instances": [NaN]', "JSON Parse error"),
        (b'{"instances": [NaN, 1e999]}', "too big"),
        (b"[1]", "must be a JSON object"),
        (b'{"signature_name": 1, "instances": []}', "'signature_name' must be a string"),
        (b"{}", "exactly one of 'instances'"),
        (b'{"instances": [], "inputs": []}', "exactly one of 'instances'"),
        (b'{"instances": {}}', "'instances' must be a list"),
    ],
)
def test_a_request_that_cannot_be_read_says_why(body, message):
    with pytest.raises(BadRequest, match=message):
        wire.parse(body)


def test_a_request_says_its_signature_and_its_format():
    assert wire.parse(b'{"inputs": {"a": 1}}') == ("serving_default", {"a": 1}, False)
    assert wire.parse(b'{"signature_name": "embed", "instances": []}') == ("embed", [], True)


def test_an_answer_has_the_format_of_its_request():
    one = {"embeddings": np.float32([[1, 2], [3, 4]])}
    two = {**one, "valid": np.array([True, False])}
    assert json.loads(wire.answer(one, rows=True)) == {"predictions": [[1, 2], [3, 4]]}
    assert json.loads(wire.answer(one, rows=False)) == {"outputs": [[1, 2], [3, 4]]}
    found = json.loads(wire.answer(two, rows=True))["predictions"]
    assert found == [{"embeddings": [1, 2], "valid": True}, {"embeddings": [3, 4], "valid": False}]
    assert json.loads(wire.answer(two, rows=False)) == {"outputs": {"embeddings": [[1, 2], [3, 4]], "valid": [1, 0]}}


def test_an_answer_keeps_what_json_has_no_word_for():
    assert b"[NaN,-Infinity]" in wire.answer({"x": np.float32([[np.nan, -np.inf]])}, rows=True).replace(b" ", b"")
    texts = {"ids": np.array([["a", "ä"]], object), "image_bytes": np.array([b"a"], object)}
    texts["ids"] = np.array([[text.encode() for text in row] for row in texts["ids"]], object)
    assert json.loads(wire.answer(texts, rows=False))["outputs"] == {
        "ids": [["a", "ä"]],
        "image_bytes": [{"b64": "YQ=="}],
    }

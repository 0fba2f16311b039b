"""TensorFlow Serving's REST format: JSON to arrays and back."""

import base64
import binascii
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from tf_detreg.serving.problem import BadRequest

DEFAULT_SIGNATURE = "serving_default"


def parse(body: bytes) -> tuple[str, object, bool]:
    """Read a predict request.

    Args:
        body: JSON, in which `NaN`, `Infinity` and `-Infinity` may stand for numbers, as TensorFlow Serving takes them.

    Returns:
        Signature name, content, and whether it came row by row.

    Raises:
        BadRequest: If it is not a predict request in JSON.

    Example:
        >>> parse(b'{"instances": [1, NaN]}')
        ('serving_default', [1, nan], True)
    """
    try:
        request = _loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("The request must be a JSON object with 'instances' or 'inputs'.")
    signature = request.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(signature, str):
        raise BadRequest("'signature_name' must be a string.")
    if ("instances" in request) == ("inputs" in request):
        raise BadRequest("Give exactly one of 'instances' (row format) and 'inputs' (column format).")
    rows = "instances" in request
    content = request["instances" if rows else "inputs"]
    if rows and not isinstance(content, list):
        raise BadRequest("'instances' must be a list.")
    # An empty list is an empty batch, which any signature answers; TensorFlow Serving refuses it.
    return signature, content, rows


def arrays(content: Any, rows: bool, specs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs of a signature as arrays.

    Args:
        content: What stood under `instances` or `inputs`.
        rows: Whether it came as `instances`.
        specs: Tensor specs by input name.

    Raises:
        BadRequest: If names, shapes or types do not fit.
    """
    names = set(specs)
    if rows and content and isinstance(content[0], dict) and set(content[0]) != {"b64"}:
        if not all(isinstance(row, dict) and set(row) == names for row in content):
            raise BadRequest(f"Every instance must name the inputs {sorted(names)} and no others.")
        content = {name: [row[name] for row in content] for name in names}
    elif not rows and isinstance(content, dict) and set(content) != {"b64"}:
        if set(content) != names:
            raise BadRequest(f"'inputs' must name {sorted(names)}; received {sorted(content)}.")
    elif len(names) == 1:
        content = {next(iter(names)): content}
    else:
        raise BadRequest(f"The signature has several inputs, name them: {sorted(names)}.")
    made = {name: _array(name, value, specs[name]) for name, value in content.items()}
    if len({len(value) for value in made.values()}) > 1:
        raise BadRequest("All inputs must have the same number of rows.")
    return made


def answer(outputs: dict[str, np.ndarray], rows: bool) -> bytes:
    """Return the response to a predict request, in the format that the request had."""
    finite = all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f")
    dump = _dump if finite else _dump_any
    plain = {name: _plain(name, value) for name, value in outputs.items()}
    (single,) = plain.values() if len(plain) == 1 else (None,)
    if not rows:
        return dump({"outputs": plain if single is None else single})
    if single is None:
        single = [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]
    return dump({"predictions": single})


def _loads(body: bytes) -> object:
    """Return JSON by orjson, and what it refuses, such as `NaN`, by Python's slower parser."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # Only where it can help: a broken body is not read twice.
        if not any(word in body for word in (b"NaN", b"Infinity")):
            raise
        return json.loads(body, parse_float=_finite, parse_int=_finite_whole)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too big to be stored in a double")
    return number


def _finite_whole(text: str) -> int | float:
    # Beyond 64 bits as orjson reads it.
    return int(text) if len(text) < 20 else _finite(text)


def _dump(content: dict[str, Any]) -> bytes:
    # Arrays are written by orjson itself, a tenth of the time that lists of Python floats take.
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _dump_any(content: dict[str, Any]) -> bytes:
    """Return the same with `NaN`, `Infinity` and `-Infinity`, which orjson writes as `null`."""
    return json.dumps(content, default=lambda value: value.tolist()).encode()


def _array(name: str, value: Any, spec: Any) -> np.ndarray:
    shape = spec.shape.as_list()
    if spec.dtype.name == "string":
        if not isinstance(value, list):
            raise BadRequest(f"Input {name!r} must be a list of strings.")
        made = np.empty(len(value), object)
        for row, text in enumerate(value):
            made[row] = _bytes(name, text)
        return made
    try:
        made = np.asarray(value)
    except (ValueError, RecursionError):
        raise BadRequest(f"Input {name!r} is ragged: every row must have the shape {shape[1:]}.") from None
    if made.shape == (0,):  # an empty batch
        made = np.zeros((0, *shape[1:]))
    if made.dtype.kind not in "iuf":
        raise BadRequest(f"Input {name!r} must hold numbers; received {made.dtype.kind!r} values.")
    if made.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, made.shape, strict=True)):
        raise BadRequest(f"Input {name!r} has the shape {list(made.shape)}, expected {shape}.")
    return _converted(name, made, spec.dtype)


def _converted(name: str, made: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the numbers in the type that the signature takes; none becomes another or infinite on the way."""
    if dtype.is_integer and made.size and made.dtype.kind == "f":
        raise BadRequest(f"Input {name!r} must hold whole numbers.")
    if dtype.is_floating or dtype.is_integer:
        finite = made[np.isfinite(made)]
        if finite.size and not (dtype.min <= finite.min() and finite.max() <= dtype.max):
            raise BadRequest(f"Input {name!r} holds a number that {dtype.name} cannot: it is out of its range.")
    return made.astype(dtype.as_numpy_dtype)


def _bytes(name: str, text: Any) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if not isinstance(text, dict) or set(text) != {"b64"} or not isinstance(text["b64"], str):
        raise BadRequest(f'Every row of {name!r} must be a string or {{"b64": "…"}}.')
    plain = "".join(text["b64"].split()).rstrip("=")  # with line breaks and without padding too
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"A row of {name!r} is not valid base64.") from None


def _plain(name: str, value: np.ndarray) -> np.ndarray | list[Any]:
    if value.dtype != object:
        return np.ascontiguousarray(value)
    result: list[Any]
    if name.endswith("_bytes"):
        result = _each(value.tolist(), lambda text: {"b64": base64.b64encode(text).decode()})
    else:
        result = _each(value.tolist(), lambda text: text.decode("utf-8", "replace"))
    return result


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return [_each(item, change) for item in value] if isinstance(value, list) else change(value)

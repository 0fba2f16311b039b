"""TensorFlow Serving's REST format: JSON to arrays and back."""

import base64
import binascii

import numpy as np
import orjson


class BadRequest(Exception):
    """What the client sent cannot be used; the text says why."""


def parse(body: bytes) -> tuple[str, object, bool]:
    """(signature name, content, whether it came row by row) of a predict request.

    Raises:
        BadRequest: If it is not a predict request in JSON.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("The request must be a JSON object with 'instances' or 'inputs'.")
    signature = request.get("signature_name", "serving_default")
    if not isinstance(signature, str):
        raise BadRequest("'signature_name' must be a string.")
    if ("instances" in request) == ("inputs" in request):
        raise BadRequest("Give exactly one of 'instances' (row format) and 'inputs' (column format).")
    rows = "instances" in request
    content = request["instances" if rows else "inputs"]
    if rows and not isinstance(content, list):
        raise BadRequest("'instances' must be a list.")
    return signature, content, rows


def arrays(content, rows: bool, specs: dict) -> dict[str, np.ndarray]:
    """The inputs of a signature as arrays.

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
            raise BadRequest(f"'inputs' must name {sorted(names)}, received {sorted(content)}.")
    elif len(names) == 1:
        content = {next(iter(names)): content}
    else:
        raise BadRequest(f"The signature has several inputs, name them: {sorted(names)}.")
    made = {name: _array(name, value, specs[name]) for name, value in content.items()}
    if len({len(value) for value in made.values()}) > 1:
        raise BadRequest("All inputs must have the same number of rows.")
    return made


def answer(outputs: dict[str, np.ndarray], rows: bool) -> bytes:
    """The response to a predict request, in the format that the request had."""
    plain = {name: _plain(name, value) for name, value in outputs.items()}
    (single,) = plain.values() if len(plain) == 1 else (None,)
    if not rows:
        return _dump({"outputs": plain if single is None else single})
    if single is None:
        single = [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]
    return _dump({"predictions": single})


def _dump(content: dict) -> bytes:
    # Arrays are written by orjson itself, a tenth of the time that lists of Python floats take.
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _array(name: str, value, spec) -> np.ndarray:
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
    if made.size == 0:
        made = np.zeros((0, *shape[1:]))
    if made.dtype.kind not in "iuf":
        raise BadRequest(f"Input {name!r} must hold numbers, received {made.dtype.kind!r} values.")
    if made.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, made.shape, strict=True)):
        raise BadRequest(f"Input {name!r} has the shape {list(made.shape)}, expected {shape}.")
    return made.astype(spec.dtype.as_numpy_dtype)


def _bytes(name: str, text) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if not isinstance(text, dict) or set(text) != {"b64"} or not isinstance(text["b64"], str):
        raise BadRequest(f'Every row of {name!r} must be a string or {{"b64": "…"}}.')
    try:
        return base64.b64decode(text["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"A row of {name!r} is not valid base64.") from None


def _plain(name: str, value: np.ndarray) -> np.ndarray | list:
    if value.dtype != object:
        return np.ascontiguousarray(value)
    if name.endswith("_bytes"):
        return _each(value.tolist(), lambda text: {"b64": base64.b64encode(text).decode()})
    return _each(value.tolist(), lambda text: text.decode("utf-8", "replace"))


def _each(value, change):
    return [_each(item, change) for item in value] if isinstance(value, list) else change(value)

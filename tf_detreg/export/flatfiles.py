"""`.tflite` models as Python objects that can be changed, and back."""

from collections.abc import Callable
from typing import Any

from tf_detreg import extras


def unpacked(model: bytes) -> Any:
    """Return the `schema.ModelT` of a model.

    Raises:
        ValueError: If `model` is no `.tflite` model.
    """
    with extras.needed("A .tflite file"):
        from ai_edge_litert import schema_py_generated as schema

    if not schema.Model.ModelBufferHasIdentifier(model, 0):
        raise ValueError(f"`model` must be the bytes of a .tflite file; received {bytes(model[:8])!r}…")
    return schema.ModelT.InitFromPackedBuf(model, 0)


def packed(content: Any) -> bytes:
    """Return the model of a `schema.ModelT`, its weights where the format wants them: at multiples of 16 bytes."""
    import flatbuffers

    size = sum(0 if buffer.data is None else len(buffer.data) for buffer in content.buffers)
    builder = flatbuffers.Builder(size + 65536)
    for buffer in content.buffers:
        buffer.Pack = _aligned(buffer)
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _aligned(buffer: Any) -> Callable[[Any], int]:
    """Return `buffer.Pack`, which leaves out the alignment that the schema demands (`force_align: 16`)."""
    pack = type(buffer).Pack

    def packing(builder: Any) -> int:
        if buffer.data is not None:
            builder.Prep(16, len(buffer.data))
        offset: int = pack(buffer, builder)
        return offset

    return packing


def code_of(content: Any, name: str, version: int) -> int:
    """Return the index of a built-in operator's code, which is added where the model has none of this version."""
    with extras.needed("A .tflite file"):
        from ai_edge_litert import schema_py_generated as schema

    value = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(content.operatorCodes):
        if code.builtinCode == value and code.version == version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = value, version
    code.deprecatedBuiltinCode = min(value, 127)  # codes above 127 are known by `builtinCode` alone
    content.operatorCodes.append(code)
    return len(content.operatorCodes) - 1

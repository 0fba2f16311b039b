"""Tensors out of a PyTorch checkpoint without PyTorch, and without executing what the file says.

A checkpoint is a pickle: a program for a small stack machine that may call anything. Here the program is only read
(`pickletools` splits it into instructions); of these the few that a table of tensors needs are understood as data, and
any other, or any name but the four below, is refused.
"""

from __future__ import annotations

import os
import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_TENSOR, _DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_IGNORED = {"PROTO", "STOP"}
_LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NONE", "NEWTRUE", "NEWFALSE"}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a state dict of float32 and int64 tensors in PyTorch's first file format (before 1.6).

    Args:
        path: The file.

    Returns:
        Name → array.

    Raises:
        ValueError: If the file is anything else, or holds any instruction beyond tensors in a dict.
    """
    try:
        with open(path, "rb") as file:
            if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
                raise ValueError("not in PyTorch's legacy format")
            if not _load(file)["little_endian"]:
                raise ValueError("big-endian")
            state, keys = _load(file), _load(file)
            wanted = {t.storage.key: t.storage for t in state.values() if isinstance(t, _Tensor)}
            data = {key: _read_storage(file, wanted[key]) for key in keys}
            if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
                raise ValueError("not a dict of tensors")
            return {name: _array(tensor, data[tensor.storage.key]) for name, tensor in state.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        # Only our own errors are sentences; a KeyError is the number that was not found.
        reason = str(error) if isinstance(error, ValueError) else "its parts do not fit together"
        raise ValueError(
            f"{os.fspath(path)} is damaged, or not a plain table of tensors in PyTorch's format before version 1.6 "
            f"({reason}). Copy or install it again, or save the tensors as .npz: numpy.savez(FILE, **{{name: "
            "tensor.numpy() for name, tensor in state_dict.items()}), and give that as weights."
        ) from error


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little")
    data = file.read(size * np.dtype(storage.dtype).itemsize)
    if size != storage.size or len(data) != size * np.dtype(storage.dtype).itemsize:
        raise ValueError(f"the storage {storage.key} is cut off")
    return np.frombuffer(data, storage.dtype)


def _array(tensor: _Tensor, data: np.ndarray) -> np.ndarray:
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((0, tensor.offset, *tensor.strides)) < 0 or min((1, *tensor.shape)) < 1 or last >= len(data):
        raise ValueError(f"a tensor of shape {tensor.shape} reaches outside its storage")
    strides = [stride * data.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)


def _load(file: BinaryIO) -> Any:
    """Return the value that the next pickle describes."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The part of the stack machine that builds numbers, texts, tuples, lists, dicts and tensor descriptions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _IGNORED:
            return
        if opcode in _LITERALS:
            stack.append(_VALUES.get(opcode, argument))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "GLOBAL":
            stack.append(self._name(argument))
        elif opcode == "MARK":
            self.marks.append(len(stack))
        elif opcode in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[opcode])
        elif opcode in ("TUPLE", "TUPLE1", "TUPLE2"):
            stack.append(tuple(self._pop(None if opcode == "TUPLE" else int(opcode[-1]))))
        elif opcode == "APPENDS":
            items = self._pop()
            stack[-1].extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._pop(2 if opcode == "SETITEM" else None)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode == "REDUCE":
            name, arguments = self._pop(2)
            stack.append(self._reduce(name, arguments))
        elif opcode == "BUILD":
            stack.pop()  # attributes of the dict (version notes): of no use here
        else:
            raise ValueError(f"the instruction {opcode} is refused")

    def _pop(self, count: int | None = None) -> list[Any]:
        start = self.marks.pop() if count is None else len(self.stack) - count
        items, self.stack[start:] = self.stack[start:], []
        return items

    @staticmethod
    def _name(text: str) -> _Name:
        if text not in (*_DTYPES, _TENSOR, _DICT):
            raise ValueError(f"the name {text!r} is refused")
        return _Name(text)

    @staticmethod
    def _storage(description: tuple[Any, ...]) -> _Storage:
        kind, name, key, _, size, view = description
        if kind != "storage" or view is not None:
            raise ValueError("a reference to something other than a whole storage")
        return _Storage(_DTYPES[name.text], key, size)

    @staticmethod
    def _reduce(name: _Name, arguments: tuple[Any, ...]) -> dict[str, Any] | _Tensor:
        if name.text == _DICT and arguments == ():
            return {}
        if name.text == _TENSOR:
            storage, offset, shape, strides, _, _ = arguments
            return _Tensor(storage, offset, shape, strides)
        raise ValueError(f"a call of {name.text} is refused")

"""PyTorch's first file format: what is read, and that whatever points elsewhere is refused."""

import pickle
import struct

import numpy as np
import pytest

from tf_detreg.backbones.torch_file import read_torch_file

MAGIC = 0x1950A86A20F9469CFC6C
DATA = np.arange(6, dtype="<f4")


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    offset=0, shape=(6,), strides=(1,), size=6, kind="storage", view=b"N", call=b"torch._utils\n_rebuild_tensor_v2"
):
    """The instructions that build a tensor, as PyTorch writes them."""
    storage = b"(" + text(kind) + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(size) + view + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"c" + call + b"\n(" + storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks + b"tR"


def write(path, value, order=True, keys=("0",), count=6, data=DATA):
    head = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": order})]
    state = b"\x80\x02}(" + text("w") + value + b"u."
    listed = b"\x80\x02](" + b"".join(map(text, keys)) + b"e."
    content = b"".join([*head, state, listed, struct.pack("<q", count), data.tobytes()])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("described", "wanted"),
    [
        ({}, DATA),
        ({"shape": (2, 3), "strides": (3, 1)}, DATA.reshape(2, 3)),
        ({"shape": (3, 2), "strides": (1, 3)}, DATA.reshape(2, 3).T),
        ({"offset": 2, "shape": (4,)}, DATA[2:]),
        ({"offset": 1, "shape": (2, 2), "strides": (2, 2)}, [[1, 3], [3, 5]]),
        ({"offset": 5, "shape": (1,)}, DATA[5:]),
        ({"offset": 5, "shape": (), "strides": ()}, DATA[5]),
    ],
)
def test_a_tensor_is_read_with_its_offset_and_strides(described, wanted, tmp_path):
    found = read_torch_file(write(tmp_path / "a.pth", tensor(**described)))
    assert list(found) == ["w"] and found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], wanted)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"shape": (7,)}, r"a tensor of shape \(7,\) reaches outside its storage"),
        ({"offset": 1}, "reaches outside"),
        ({"offset": -1, "shape": (1,)}, "reaches outside"),
        ({"strides": (-1,)}, "reaches outside"),
        ({"shape": (0,)}, "reaches outside"),
        ({"shape": (2, 3), "strides": (4, 1)}, "reaches outside"),
        ({"kind": "module"}, "something other than a whole storage"),
        ({"view": b"K\x00"}, "something other than a whole storage"),
        ({"size": 7}, "the storage 0 is cut off"),
        ({"call": b"collections\nOrderedDict"}, "a call of collections OrderedDict is refused"),
        ({"call": b"os\nsystem"}, "the name 'os system' is refused"),
    ],
)
def test_a_tensor_that_reaches_elsewhere_is_refused(described, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_torch_file(write(tmp_path / "a.pth", tensor(**described)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": False}, "big-endian"),
        ({"count": 5}, "cut off"),
        ({"data": DATA[:5]}, "cut off"),
        ({"keys": ("1",)}, "its parts do not fit together"),
        ({"keys": ()}, "its parts do not fit together"),
        ({"value": tensor() + text("v") + number(3)}, "not a dict of tensors"),
    ],
)
def test_another_file_is_refused(changes, message, tmp_path):
    changes = {"value": tensor(), **changes}
    with pytest.raises(ValueError, match=message):
        read_torch_file(write(tmp_path / "a.pth", **changes))

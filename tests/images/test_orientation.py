"""The orientation that a file states, and the profile that it stands in."""

import struct
import zlib

import pytest

from tf_detreg.images import UnreadableImage, orientation


def exif(entries, order="<", behind=b"\0\0\0\0"):
    """An EXIF block of (tag, kind, count, four bytes of value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries) + behind


@pytest.mark.parametrize(("order", "value"), [("<", b"\6\0\0\0"), (">", b"\0\6\0\0")])
def test_an_orientation_may_end_with_its_block(order, value):
    entries = [(0x10F, 2, 4, b"abc\0"), (0x112, 3, 1, value)]
    for behind in (b"\0\0\0\0", b""):
        assert orientation.of_exif(exif(entries, order, behind)) == 6
        assert orientation.of_exif(orientation.PREFIX + exif(entries, order, behind)) == 6
        assert orientation.of_exif(2 * orientation.PREFIX + exif(entries, order, behind)) == 6
    assert orientation.of_exif(3 * orientation.PREFIX + exif(entries, order)) == 1
    for cut in range(1, 13):
        assert orientation.of_exif(exif(entries, order, b"")[:-cut]) == 1


@pytest.mark.parametrize(
    ("kind", "count", "value", "found"),
    [
        (3, 1, 8, 8),
        (3, 1, 9, 1),
        (3, 1, 0, 1),
        (4, 1, 6, 6),
        (1, 1, 5, 5),
        (3, 3, 6, 1),  # too many to stand in the entry
        (4, 2, 6, 1),
        (3, 0, 6, 1),
        (2, 1, 6, 1),  # a text
    ],
)
def test_an_orientation_is_one_small_whole_number(kind, count, value, found):
    assert orientation.of_exif(exif([(0x112, kind, count, struct.pack("<I", value))])) == found


def test_a_profile_has_a_largest_size_and_an_end():
    for length in (0, 1000, orientation.MOST_UNPACKED):
        assert orientation._unpacked(zlib.compress(b"0" * length)) == b"0" * length
    for packed in (
        zlib.compress(b"0" * (orientation.MOST_UNPACKED + 1)),
        zlib.compress(b"0" * 1000)[:-5],
        b"no stream",
    ):
        with pytest.raises(UnreadableImage, match="its profile"):
            orientation._unpacked(packed)

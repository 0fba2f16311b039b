"""Whether the compressed pixels of a GIF use only codes that are defined.

Decoders disagree about a code that the table does not hold yet: some stop, some draw on. So such a file is refused
before it is decoded, by `graph/lzw.py` in TensorFlow operations alike.

A code's width follows from how many codes came since the table was cleared. So all codes up to the next clearing are
cut out of the bits at once.
"""

from __future__ import annotations

import numpy as np

from tf_detreg.images.formats import UnreadableImage

WINDOW = 4096  # codes in one step; from one clearing to the next an encoder writes hardly more
MOST_STEPS = 1 << 13
MOST_CODES, MOST_BITS = 4096, 12  # of the table, and of a code
ROOT_BITS = range(1, 9)  # of a pixel
WIDTHS = np.array([min(code.bit_length(), MOST_BITS) for code in range(MOST_CODES + 1)], np.int32)


def check_codes(content: bytes, at: int) -> None:
    """See that all codes up to the end code, or to the end of the data, are defined.

    Args:
        content: The file, whole as far as its blocks go.
        at: Where the compressed pixels begin, with the number of bits of a pixel.

    Raises:
        UnreadableImage: If one is not, or the table is cleared more than 8,192 times.
    """
    bits = content[at]
    if bits not in ROOT_BITS:
        raise UnreadableImage(f"the GIF has pixels of {bits} bits")
    data = _joined(content, at + 1)
    clear = 1 << bits
    padded = np.frombuffer(data + bytes(3), np.uint8)
    start, count = 0, 0
    for _ in range(MOST_STEPS):
        number = count + np.arange(WINDOW)
        free = np.minimum(clear + 2 + np.maximum(number - 1, 0), MOST_CODES)
        widths = np.maximum(WIDTHS[free], bits + 1)
        ends = start + np.cumsum(widths)
        begins = ends - widths
        place = np.minimum(begins >> 3, len(data))
        three = [padded[place + i].astype(np.int32) << 8 * i for i in range(3)]
        codes = (three[0] | three[1] | three[2]) >> (begins & 7) & (1 << widths) - 1
        cut = ends > 8 * len(data)
        stops = np.flatnonzero(cut | (codes == clear) | (codes == clear + 1))
        stop = stops[0] if len(stops) else WINDOW
        most = np.where(number == 0, clear - 1, np.minimum(free, MOST_CODES - 1))
        if (codes > most)[:stop].any():
            raise UnreadableImage("the GIF's compressed pixels hold an undefined code")
        if stop == WINDOW:
            start, count = int(ends[-1]), count + WINDOW
        elif not cut[stop] and codes[stop] == clear:
            start, count = int(ends[stop]), 0
        else:
            return
    raise UnreadableImage(f"the GIF clears its table more than {MOST_STEPS:,} times")


def _joined(content: bytes, at: int) -> bytes:
    """Return the bytes of a chain of blocks, each behind its length and the last one empty."""
    parts = []
    while content[at]:
        parts.append(content[at + 1 : at + 1 + content[at]])
        at += 1 + content[at]
    return b"".join(parts)

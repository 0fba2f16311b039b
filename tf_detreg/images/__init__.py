"""Everything between the bytes of an image file and its pixels, under one written policy that every reader follows.

Each question has one answer, at the head of the module that owns it: which files count (`formats`), what is refused
unseen (`headers`), which way up (`orientation`), palettes and transparency (`color`), which part and how large
(`geometry`). Three readers follow it: `reference` (Pillow: evaluation), `graph` (TensorFlow operations alone: what an
exported model runs) and `training` (fast, for plain JPEGs; other files go to the reference). They agree on every
file: the graph to the last bit (CMYK: within 2 of 255), training to what its coarser resizing changes; or all refuse.
What only the reference reads, the graph answers with `valid = false`: TIFF, PPM, AVIF, HEIC, animated WebP, and BMP
with run lengths, bit fields, 16 bits a pixel or the header of OS/2.
"""

from tf_detreg.images.formats import EXTENSIONS, MAX_PIXELS, UnreadableImage, is_image_name
from tf_detreg.images.geometry import RandomCrop
from tf_detreg.images.reference import decode

__all__ = ["EXTENSIONS", "MAX_PIXELS", "RandomCrop", "UnreadableImage", "decode", "is_image_name"]

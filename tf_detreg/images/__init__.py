"""Everything between the bytes of an image file and its pixels, under one written policy that every reader follows."""

from tf_detreg.images.formats import EXTENSIONS, MAX_PIXELS, UnreadableImage, is_image_name, open_image

__all__ = ["EXTENSIONS", "MAX_PIXELS", "UnreadableImage", "is_image_name", "open_image"]

"""The graph reader: TensorFlow operations alone, so that an exported model decodes as evaluation does."""

from tf_detreg.images.graph.reader import decode, decode_batch

__all__ = ["decode", "decode_batch"]

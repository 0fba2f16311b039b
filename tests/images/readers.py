"""The three readers as functions of files, all with the same answer: pixels, or None where a file cannot be read."""

import functools

import numpy as np
import tensorflow as tf

from tf_detreg.images import UnreadableImage, graph
from tf_detreg.images.geometry import DRAWS
from tf_detreg.images.reference import read
from tf_detreg.images.training import JpegPlanner, decode_windows


def reference(content, size):
    try:
        return read(content, size).astype(int)
    except UnreadableImage:
        return None


@functools.cache
def _served(size):
    signature = [tf.TensorSpec((None,), tf.string)]
    return tf.function(lambda contents: graph.decode_batch(contents, size), input_signature=signature)


def graphs(contents, size):
    images, valid = _served(size)(tf.constant(contents, tf.string))
    return [image if fine else None for image, fine in zip(images.numpy().astype(int), valid.numpy(), strict=True)]


def trainings(paths, size):
    """The fast reader, and the reference for what is no plain JPEG, as a training batch takes them."""
    planned = JpegPlanner(paths, size, None).plan(np.arange(len(paths)), np.zeros((len(paths), DRAWS)))
    images, kept = decode_windows(*map(tf.constant, planned), size)
    found = zip(paths, images.numpy(), kept.numpy(), strict=True)
    return [image if fine else reference(path, size) for path, image, fine in found]

"""Checks of the features that a head is called on."""

import keras
import tensorflow as tf

from tf_detreg.checks import invalid
from tf_detreg.shapes import Shape

# Above this, a float32 sum of squares over a few thousand coordinates overflows.
LARGEST_FEATURE = 1e16


def check_built(head: keras.layers.Layer) -> None:
    """Refuse a head that has no weights yet: it would leave the projection out, or miss its networks."""
    if not head.built:
        raise ValueError(f"{head.name} is not built: call it on features once, or build((None, width)), before that.")


def check_width(input_shape: Shape, layer: str) -> int:
    """Return F of a feature shape `(B, F)`; any other rank and an unknown F are errors."""
    if len(input_shape) != 2:
        raise invalid(
            "features",
            f"have shape (batch, width) for {layer}",
            f"inputs of shape {tuple(input_shape)}",
            "If these are images, put a backbone with global pooling before the head.",
        )
    if input_shape[-1] is None:
        raise invalid(
            "features",
            f"have a static width for {layer}",
            f"inputs of shape {tuple(input_shape)}",
            "Fix the last dimension, for example with keras.layers.Reshape((width,)).",
        )
    return int(input_shape[-1])


def check_finite(features: tf.Tensor, layer: str) -> None:
    """Refuse NaN, infinite and absurdly large features, where the values can be seen: in eager calls.

    Inside a `tf.function` there is nothing to see yet and a graph-side assertion would bar mobile export, so there a
    NaN passes through (and its own row alone becomes NaN); training has its own guard.
    """
    if not tf.executing_eagerly() or not tf.is_tensor(features):
        return
    if not features.dtype.is_floating:
        return
    # Written so that NaN, which compares false, is caught too.
    fine = tf.abs(features) <= tf.constant(LARGEST_FEATURE, features.dtype)
    if not tf.reduce_all(fine):
        row = int(tf.where(~fine)[0, 0])
        value = float(tf.boolean_mask(features, ~fine)[0])
        count = int(tf.reduce_sum(tf.cast(~fine, tf.int32)))
        raise ValueError(
            f"`features` must be finite and within ±{LARGEST_FEATURE:.0e} for {layer}; received {count} value(s) that "
            f"are not, the first is {value} in row {row}. Check the images' range and the backbone's weights."
        )

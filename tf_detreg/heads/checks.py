"""Checks of what a caller hands to a head: each failure is a `ValueError` that names the argument and what came."""

import math
import numbers
from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from tf_detreg.shapes import Shape

# Above this, a float32 sum of squares over a few thousand coordinates overflows.
LARGEST_FEATURE = 1e16


def is_finite(value: Any) -> bool:
    """Return whether `value` is a number, and neither a bool nor NaN nor infinite."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number."""
    if not is_finite(value):
        raise ValueError(f"{name} must be finite, received {value!r}.")
    return float(value)


def check_integer(name: str, value: Any, least: int) -> int:
    """Return `value` as an int if it is a whole number, `least` or more."""
    if not is_finite(value) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, received {value!r}.")
    return int(value)


def check_rate(name: str, value: Any) -> float:
    """Return `value` as a float if it is a dropout rate: 0 ≤ value < 1."""
    if not is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), received {value!r}.")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float if it is finite and above 0."""
    if not is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be finite and above 0, received {value!r}.")
    return float(value)


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {sorted(choices)}, received {value!r}.")
    return value


def check_built(head: keras.layers.Layer) -> None:
    """Refuse a head that has no weights yet: it would leave the projection out, or miss its networks."""
    if not head.built:
        raise ValueError(f"{head.name} is not built: call it on features once, or build((None, width)), before that.")


def check_width(input_shape: Shape, layer: str) -> int:
    """Return F of a feature shape `(B, F)`; any other rank and an unknown F are errors."""
    if len(input_shape) != 2:
        raise ValueError(
            f"{layer} takes features of shape (batch, width), received inputs of shape {tuple(input_shape)}. "
            "If these are images, put a backbone with global pooling before the head."
        )
    if input_shape[-1] is None:
        raise ValueError(
            f"{layer} needs a static feature width, received inputs of shape {tuple(input_shape)}. "
            "Fix the last dimension, for example with keras.layers.Reshape((width,))."
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
            f"{layer} received features with {count} value(s) that are NaN, infinite or beyond ±{LARGEST_FEATURE:.0e}; "
            f"the first is {value} in row {row}. Check the images' range and the backbone's weights."
        )

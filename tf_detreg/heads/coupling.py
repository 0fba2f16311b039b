"""What the coupling flows (RealNVP, NICE, Glow) share: how the coordinates are split, and the bounded scale."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def split(dim: int, layer: int) -> tuple[int, int, int]:
    """Return how the `layer`-th coupling divides `dim` coordinates into a part that is read and one that is moved.

    Even layers read the head and move the tail, odd layers the reverse, so no coordinates need permuting.

    Returns:
        `num_masked` as `tfp.bijectors.RealNVP` takes it (negative: the *last* ones are read), how many are read, and
        how many are moved.

    Example:
        >>> split(5, layer=0), split(5, layer=1)
        ((2, 2, 3), (-3, 3, 2))
    """
    head, tail = dim // 2, dim - dim // 2
    return (head, head, tail) if layer % 2 == 0 else (-tail, tail, head)


def bounded(s: tf.Tensor, bound: float) -> tf.Tensor:
    """Return `bound · tanh(s / bound)`: near the identity for small `s`, never beyond ±bound."""
    return bound * tf.tanh(s / bound)


def shift_and_log_scale(
    net: Callable[..., tf.Tensor], z_a: tf.Tensor, training: bool | None, bound: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what an affine coupling's network says: `(shift, raw) = net(z_a)` and `s = bounded(raw)`."""
    shift, raw = tf.split(net(z_a, training=training), 2, axis=-1)
    return shift, bounded(raw, bound)


def affine_coupling(
    num_masked: int,
    net: Callable[..., tf.Tensor],
    training: bool | None,
    bound: float,
    record: Callable[[tf.Tensor], None],
) -> Any:
    """Return one affine coupling as a fresh TFP bijector.

        y_a = z_a,    y_b = z_b ⊙ exp(s) + shift,    shift and s from `shift_and_log_scale`

    The network runs once; its log-scale goes both into the transform and to `record`.
    """
    from tensorflow_probability import bijectors as tfb

    def affine(z_a: tf.Tensor, _: Any) -> Any:
        shift, log_scale = shift_and_log_scale(net, z_a, training, bound)
        record(log_scale)
        return tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=log_scale)])

    return tfb.RealNVP(num_masked=num_masked, bijector_fn=affine)


def additive_coupling(num_masked: int, net: Callable[..., tf.Tensor], training: bool | None) -> Any:
    """Return one additive coupling as a fresh TFP bijector: `y_a = z_a`, `y_b = z_b + net(z_a)`; it has no scale."""
    from tensorflow_probability import bijectors as tfb

    return tfb.RealNVP(num_masked=num_masked, bijector_fn=lambda z_a, _: tfb.Shift(net(z_a, training=training)))

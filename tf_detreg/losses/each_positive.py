"""A sum over all triplets of a batch, one positive of every anchor at a time, with an exact gradient."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_detreg.losses.pairs import Pairs


def sum_over_positives(
    pairs: Pairs, tensors: Sequence[tf.Tensor], term: Callable[..., tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum a function of each (anchor, positive) pair and all the anchor's negatives.

    Step k takes the k-th positive of every anchor, so that tensors are `(B, M)` instead of `(B, M, M)`; there are as
    many steps as the largest number of positives. The backward pass goes through the steps again instead of keeping
    them.

    Args:
        pairs: Masks of positives and negatives.
        tensors: What the terms depend on, the distances `(B, M)` of anchors and references first; no
            tensor twice.
        term: `(chosen, exists, d_ap (B, 1), *tensors) -> (losses (B,), number of counted terms)`; `chosen` is a
            boolean `(B, M)` with the step's positive of each anchor, `exists (B, 1)` says whether it has that many.

    Returns:
        The sum for each anchor `(B,)`, and the number of counted terms.
    """
    order = tf.cumsum(tf.cast(pairs.positives, tf.int32), axis=1)
    numbers, counts = tf.where(pairs.positives, order, 0), order[:, -1:]
    steps = tf.reduce_max(counts)
    kind = tensors[0].dtype

    def step(number: tf.Tensor, matrix: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = numbers == number
        far = tf.reduce_sum(tf.where(chosen, matrix, 0), axis=1, keepdims=True)
        return term(chosen, counts >= number, far, matrix, *others)

    def loop(body: Callable[..., tuple[tf.Tensor, ...]], start: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return tuple(tf.while_loop(lambda number, *_: number <= steps, body, (1, *start))[1:])

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no stubs
    def summed(*tensors: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tuple[tf.Tensor, ...]]]:
        def forward(number: tf.Tensor, sums: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, ...]:
            losses, counted = step(number, *tensors)
            return number + 1, sums + losses, count + counted

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            def backward(number: tf.Tensor, *slopes: tf.Tensor) -> tuple[tf.Tensor, ...]:
                with tf.GradientTape() as tape:
                    tape.watch(tensors)
                    weighted = tf.reduce_sum(step(number, *tensors)[0] * upstream)
                more = tape.gradient(weighted, tensors, unconnected_gradients="zero")
                return number + 1, *(slope + other for slope, other in zip(slopes, more, strict=True))

            return loop(backward, [tf.zeros_like(tensor) for tensor in tensors])

        return loop(forward, (tf.zeros_like(tensors[0][:, 0]), tf.zeros([], kind))), gradient

    sums, count = summed(*tensors)
    return sums, count

"""Negatives drawn so that all distances are about equally likely."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.pairs import Mined, MinedTriplets, Pairs
from tf_detreg.miners.base import Miner


@keras.saving.register_keras_serializable("tf_detreg", name="DistanceWeightedMiner")
class DistanceWeighted(Miner):
    r"""Distance-weighted sampling: for each positive pair one negative, near ones as likely as far ones.

    The probability of a negative is in proportion to

    `w_an ∝ 1/q(d)`,  `log w = (2 - D) log d + (3 - D)/2 · log(1 - d²/4)`,  `d = max(d_an, cutoff)`

    where `q` is the density of distances between random points of the unit sphere in `D` dimensions. Negatives at
    `nonzero_loss_cutoff` or beyond are never drawn; a pair whose anchor has no other negative is left out.

    Near-antipodal points, where the formula is infinite, lie beyond the cutoff; without one (`None`) they get the
    weight of the largest distance below 2 that float32 resolves. Weights stay in logarithms, so that hundreds of
    dimensions do not overflow. The negative is drawn by Gumbel's trick.

    Paper settings: cutoff 0.5, 1.4.
    Other code: the authors and pytorch-metric-learning shift the weights by their maximum over the whole batch, so that
    rows far below it vanish. There the authors draw uniformly, also from the anchor's class, and
    pytorch-metric-learning leaves the anchor out; here each row is shifted by itself. Roth et al. leave the upper
    cutoff out.

    Args:
        cutoff: Smallest distance in the weights. Default 0.5.
        nonzero_loss_cutoff: Distance from which on negatives are not drawn. Default 1.4.
        seed: Of the draws; with a seed every call draws the same. Default None: each call draws anew.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedTriplets`: index vectors of anchors, positives and negatives.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or a cutoff outside (0, 2).

    Example:

    >>> mined = DistanceWeighted()([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> [index.numpy().tolist() for index in mined]
    [[0, 1], [1, 0], [2, 2]]

    Reference: Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017.
    """

    def __init__(self, cutoff: float = 0.5, nonzero_loss_cutoff: float | None = 1.4, seed: int | None = None) -> None:
        if nonzero_loss_cutoff is not None:
            checks.positive("nonzero_loss_cutoff", nonzero_loss_cutoff)
        self.cutoff = checks.within("cutoff", cutoff, 0, 2, "()")
        self.nonzero_loss_cutoff = nonzero_loss_cutoff
        self.seed = seed
        # Keras' generator, not TensorFlow's: its state can be kept with a model's.
        self.draws = keras.random.SeedGenerator() if seed is None else None

    def log_weights(self, pairs: Pairs) -> tf.Tensor:
        """Return the logarithm of each pair's weight up to a constant, `(B, M)`; minus infinity where never drawn."""
        matrix = pairs.matrix
        dim = tf.cast(tf.shape(pairs.anchors)[1], matrix.dtype)
        floored = tf.maximum(matrix, self.cutoff)
        height = tf.maximum(1 - tf.square(floored) / 4, 1e-6)
        weights = (2 - dim) * tf.math.log(floored) + (3 - dim) / 2 * tf.math.log(height)
        drawn = pairs.negatives
        if self.nonzero_loss_cutoff is not None:
            drawn &= matrix < self.nonzero_loss_cutoff
        return tf.where(drawn, weights, float("-inf"))

    def choose(self, pairs: Pairs) -> Mined:
        weights = self.log_weights(pairs)
        usable = tf.reduce_any(tf.math.is_finite(weights), axis=1, keepdims=True)
        listed = tf.cast(tf.where(pairs.positives & usable), tf.int32)
        rows = tf.gather(weights, listed[:, 0])
        uniform = tf.random.stateless_uniform(tf.shape(rows), self._seed(), 1e-12, 1.0, rows.dtype)
        drawn = tf.argmax(rows - tf.math.log(-tf.math.log(uniform)), axis=1, output_type=tf.int32)
        return MinedTriplets(listed[:, 0], listed[:, 1], drawn)

    def _seed(self) -> tf.Tensor:
        return tf.constant([self.seed, 0]) if self.draws is None else self.draws.next()

    def get_config(self) -> dict[str, Any]:
        return {"cutoff": self.cutoff, "nonzero_loss_cutoff": self.nonzero_loss_cutoff, "seed": self.seed}

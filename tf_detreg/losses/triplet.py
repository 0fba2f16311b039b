"""Triplet loss over all triplets of a batch, or a set of them."""

import keras
import tensorflow as tf

from tf_detreg.losses.all_triplets import sum_triplets
from tf_detreg.losses.averages import average, check_average, count_true
from tf_detreg.losses.direction import cosine_at_anchor
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import MinedTriplets, Pairs, as_masks
from tf_detreg.losses.sorted_negatives import SortedNegatives

# The squared Euclidean distance from each distance; a cosine distance is half of it, between unit vectors.
SQUARES = {"euclidean": tf.square, "squared": tf.identity, "cosine": lambda d: 2 * d}
NEGATIVES = ("all", "semi_hard", "hard")


@keras.saving.register_keras_serializable("tf_detreg")
class Triplet(PairLoss):
    r"""Triplet loss over all (anchor, positive, negative) of a batch, with optional direction regularization.

    `L = mean_{(a,p,n)} [d_ap - d_an + m - γ r_apn]₊`, or with `soft` `mean log(1 + e^{d_ap - d_an - γ r_apn})`

    Direction regularization (γ > 0) weakens the push of a negative that lies on the positive's side:
    `r_apn = cos(f_n - f_a, f_p - f_a)`, taken as 0 where a difference vanishes.

    The plain hinge sorts each anchor's negatives instead of forming triplets: O(B² log B) time, O(B²) memory, exact
    gradient. `soft`, `swap` and `direction` go through all triplets in blocks of bounded memory (and cannot be
    compiled with XLA, because the number of triplets is not known in advance).

    Paper settings: m = 0.2. Direction: a reproduction found m = 0.278, γ = 0.492 with the mean over all triplets
    (`average="all"`); the paper gives none.
    Other code: pytorch-metric-learning's `TripletMarginLoss` is this (m = 0.05 in its version 2, 0.2 in 3), its
    `TripletMarginMiner` the sets `"semi_hard"` and `"hard"`; its smooth version keeps the margin. For one semi-hard
    negative for each pair, as in FaceNet and TensorFlow Addons, see `TripletSemiHard`; for the hardest, see
    `TripletBatchHard`.

    Args:
        margin: m. Defaults to `0.2`.
        negatives: which triplets count: `"all"`; `"semi_hard"`, `0 < d_an - d_ap <= m`; or `"hard"`, `d_an <= d_ap`.
            Defaults to `"all"`.
        soft: softplus instead of the hinge; it has no margin. Defaults to `False`.
        swap: use `min(d_an, d_pn)` for `d_an`. Defaults to `False`.
        direction: γ. Defaults to `0.0`: no direction regularization.
        average: `"nonzero"`, over triplets with a loss above 0, or `"all"` triplets. Defaults to `"nonzero"`.
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Defaults to `"euclidean"`.
        **kwargs: `normalize=True`, `miner=None`, `reduction`, `name`: see `PairLoss`.

    Call arguments:
        labels: integers `(B,)` or `(B, 1)`.
        embeddings: floats `(B, dim)`.

    Raises:
        ValueError: for labels of a wrong type, shape or range, or an unknown option.

    Example:

    >>> loss = Triplet()
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.8508

    References:
        Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015.
        Mohan et al., "Moving in the Right Direction: A Regularization for Deep Metric Learning", CVPR 2020.
    """

    default_distance = "euclidean"

    def __init__(
        self,
        margin: float = 0.2,
        negatives: str = "all",
        soft: bool = False,
        swap: bool = False,
        direction: float = 0.0,
        average: str = "nonzero",
        distance: str | None = None,
        **kwargs,
    ):
        super().__init__(distance=distance, **kwargs)
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}; received {negatives!r}.")
        if margin < 0:
            raise ValueError(f"margin must not be negative, received {margin}.")
        self.margin = margin
        self.negatives = negatives
        self.soft = soft
        self.swap = swap
        self.direction = direction
        self.average = check_average(average)

    def mined(self, pairs):
        """Triplets cannot be put as masks: `per_anchor` asks the miner itself."""
        return pairs

    def per_anchor(self, pairs):
        if self.miner is None:
            return self.over_batch(pairs)
        mined = self.mine(pairs)
        if len(mined) == 3:
            return self.over_given(pairs, MinedTriplets(*mined))
        return self.over_batch(pairs.restricted(as_masks(mined, tf.shape(pairs.positives))))

    def over_batch(self, pairs: Pairs) -> tf.Tensor:
        """The loss of each anchor over all triplets of the masks, `(B,)`."""
        if self.soft or self.swap or self.direction:
            return average(*sum_triplets(pairs, pairs.matrix, _among(pairs), self.term))
        return average(*self.sorted_sums(pairs))

    def sorted_sums(self, pairs: Pairs) -> tuple[tf.Tensor, tf.Tensor]:
        """The hinge's sum over each anchor's triplets `(B,)`, and the number of triplets to divide by.

        For a pair (a, p) the negatives with a loss are the nearest ones, up to distance d_ap + m: their number n and
        the sum S of their distances give `n (d_ap + m) - S`.
        """
        matrix = pairs.matrix
        negatives = SortedNegatives(pairs, matrix)
        upper = negatives.closer_than(matrix + self.margin)
        lower = tf.zeros_like(upper)
        whole = negatives.counts
        if self.negatives == "hard":
            whole = negatives.closer_than(matrix, inclusive=True)
            upper = tf.minimum(upper, whole)
        if self.negatives == "semi_hard":
            lower = negatives.closer_than(matrix, inclusive=True)
            whole = negatives.closer_than(matrix + self.margin, inclusive=True) - lower
            upper = tf.maximum(upper, lower)
        count = tf.cast(upper - lower, matrix.dtype)
        sums = count * (matrix + self.margin) - (negatives.nearest_sums(upper) - negatives.nearest_sums(lower))
        total = count if self.average == "nonzero" else tf.cast(whole, matrix.dtype) * tf.ones_like(matrix)
        return (
            tf.reduce_sum(tf.where(pairs.positives, sums, 0), axis=1),
            tf.reduce_sum(tf.where(pairs.positives, total, 0)),
        )

    def over_given(self, pairs: Pairs, mined: MinedTriplets) -> tf.Tensor:
        """The loss of each anchor over triplets that a miner chose, `(B,)`."""
        anchors, positives, negatives = (tf.cast(index, tf.int32) for index in mined)
        matrix = pairs.matrix
        losses, counted = self.term(
            tf.gather_nd(matrix, tf.stack([anchors, positives], axis=1)),
            tf.gather_nd(matrix, tf.stack([anchors, negatives], axis=1)),
            tf.gather_nd(_among(pairs), tf.stack([positives, negatives], axis=1)),
        )
        sums = tf.math.unsorted_segment_sum(losses, anchors, tf.shape(matrix)[0])
        return average(sums, count_true(counted, matrix.dtype))

    def term(self, ap: tf.Tensor, an: tf.Tensor, pn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss of triplets from their three distances, and which of them the average counts."""
        inside = tf.ones_like(an - ap, tf.bool)
        if self.negatives == "hard":
            inside = an <= ap
        if self.negatives == "semi_hard":
            inside = (an > ap) & (an <= ap + self.margin)
        gaps = ap - (tf.minimum(an, pn) if self.swap else an)
        if self.direction:
            square = SQUARES[self.distance]
            gaps -= self.direction * cosine_at_anchor(square(an), square(ap), square(pn))
        losses = tf.where(inside, tf.nn.softplus(gaps) if self.soft else tf.nn.relu(gaps + self.margin), 0)
        return losses, losses > 0 if self.average == "nonzero" else inside

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "negatives": self.negatives,
            "soft": self.soft,
            "swap": self.swap,
            "direction": self.direction,
            "average": self.average,
        }


def _among(pairs: Pairs) -> tf.Tensor:
    """Distances among the references, `(M, M)`."""
    return pairs.matrix if pairs.within else pairs.reference_matrix

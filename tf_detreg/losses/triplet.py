"""Triplet loss over all triplets of a batch, or a set of them."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import AVERAGES, average, count_true
from tf_detreg.losses.direction import cosine_at_anchor
from tf_detreg.losses.distances import check_distance
from tf_detreg.losses.each_positive import sum_over_positives
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import MinedTriplets, Pairs, as_masks

# The squared Euclidean distance from each distance; a cosine distance is half of it, between unit vectors.
SQUARES = {"euclidean": tf.square, "squared": tf.identity, "cosine": lambda d: 2 * d}
NEGATIVES = ("all", "semi_hard", "hard")


@keras.saving.register_keras_serializable("tf_detreg")
class Triplet(PairLoss):
    r"""Triplet loss over all (anchor, positive, negative) of a batch, with optional direction regularization.

    `L = mean_{(a,p,n)} [d_ap - d_an + m - γ r_apn]₊`, or with `soft` `mean log(1 + e^{d_ap - d_an - γ r_apn})`

    Direction regularization (γ > 0) weakens the push of a negative that lies on the positive's side:
    `r_apn = cos(f_n - f_a, f_p - f_a)`, taken as 0 where a difference vanishes.

    Each step takes one positive of every anchor: O(B²) memory, and no tensor of all triplets.

    Paper settings: FaceNet has m = 0.2 on squared distances (`distance="squared"`). Direction: a reproduction found m =
    0.278, γ = 0.492 with the mean over all triplets (`average="all"`); the paper gives none.
    Other code: pytorch-metric-learning's `TripletMarginLoss` is this (m = 0.05 in its version 2, 0.2 in 3), its
    `TripletMarginMiner` the sets `"semi_hard"` and `"hard"`; its smooth version keeps the margin. For one semi-hard
    negative for each pair, as in FaceNet and TensorFlow Addons, see `TripletSemiHard`; for the hardest, see
    `TripletBatchHard`.

    Args:
        margin: m. Default 0.2.
        negatives: Which triplets count: `"all"`; `"semi_hard"`, `0 < d_an - d_ap <= m`; or `"hard"`, `d_an <= d_ap`.
            Default `"all"`.
        soft: Softplus instead of the hinge; it has no margin. Default False.
        swap: Use `min(d_an, d_pn)` for `d_an`. Default False.
        direction: γ. Default 0.0: no direction regularization.
        average: `"nonzero"`, over triplets with a loss above 0; `"all"` triplets; or `"anchors"`, the sum over the
            triplets of an anchor, averaged over the batch. Default `"nonzero"`.
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Default `"euclidean"`.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs count; see `PairLoss`. Default None: all pairs.
        reduction: As for every Keras loss. Default `"sum_over_batch_size"`.
        name: Name of the loss. Default None: the class's.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or an unknown option.

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
        *,
        normalize: bool = True,
        miner: Any = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(distance=distance, normalize=normalize, miner=miner, reduction=reduction, name=name)
        self.margin = checks.not_negative("margin", margin)
        self.negatives = checks.choice("negatives", negatives, NEGATIVES)
        self.soft = soft
        self.swap = swap
        self.direction = checks.number("direction", direction)
        self.average = checks.choice("average", average, AVERAGES)

    def mined(self, pairs: Pairs) -> Pairs:
        """Return the pairs as they are: triplets cannot be put as masks, and `per_anchor` asks the miner itself."""
        return pairs

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        if self.miner is None:
            return self.over_batch(pairs)
        mined = self.mine(pairs)
        if len(mined) == 3:
            return self.over_given(pairs, MinedTriplets(*mined))
        return self.over_batch(pairs.restricted(as_masks(mined, tf.shape(pairs.positives))))

    def over_batch(self, pairs: Pairs) -> tf.Tensor:
        """Return the loss of each anchor over all triplets of the masks, `(B,)`."""
        third = self.swap or self.direction
        apart = [pairs.reference_matrix] if third and not pairs.within else []

        def triplets(
            chosen: tf.Tensor, exists: tf.Tensor, ap: tf.Tensor, an: tf.Tensor, among: tf.Tensor | None = None
        ) -> tuple[tf.Tensor, tf.Tensor]:
            among = an if among is None else among  # within a batch one matrix holds all distances
            pn = tf.gather(among, tf.argmax(tf.cast(chosen, tf.int8), axis=1)) if third else None
            losses, counted = self.term(ap, an, pn)
            valid = pairs.negatives & exists
            return tf.reduce_sum(tf.where(valid, losses, 0), axis=1), count_true(valid & counted, an.dtype)

        return self.averaged(*sum_over_positives(pairs, [pairs.matrix, *apart], triplets))

    def over_given(self, pairs: Pairs, mined: MinedTriplets) -> tf.Tensor:
        """Return the loss of each anchor over triplets that a miner chose, `(B,)`."""
        anchors, positives, negatives = (tf.cast(index, tf.int32) for index in mined)
        matrix = pairs.matrix
        losses, counted = self.term(
            tf.gather_nd(matrix, tf.stack([anchors, positives], axis=1)),
            tf.gather_nd(matrix, tf.stack([anchors, negatives], axis=1)),
            tf.gather_nd(matrix if pairs.within else pairs.reference_matrix, tf.stack([positives, negatives], axis=1)),
        )
        sums = tf.math.unsorted_segment_sum(losses, anchors, tf.shape(matrix)[0])
        return self.averaged(sums, count_true(counted, matrix.dtype))

    def averaged(self, sums: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Return values `(B,)` whose mean over the batch is the loss, from each anchor's sum and the count of terms."""
        return sums if self.average == "anchors" else average(sums, count)

    def term(self, ap: tf.Tensor, an: tf.Tensor, pn: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss of triplets from their distances, and which of them the average counts."""
        inside = tf.ones_like(an - ap, tf.bool)
        if self.negatives == "hard":
            inside = an <= ap
        if self.negatives == "semi_hard":
            inside = (an > ap) & (an <= ap + self.margin)
        gaps = ap - (tf.minimum(an, pn) if self.swap else an)
        if self.direction:
            square = SQUARES[check_distance(self.distance)]
            gaps -= self.direction * cosine_at_anchor(square(an), square(ap), square(pn))
        losses = tf.where(inside, tf.nn.softplus(gaps) if self.soft else tf.nn.relu(gaps + self.margin), 0)
        return losses, losses > 0 if self.average == "nonzero" else inside

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "negatives": self.negatives,
            "soft": self.soft,
            "swap": self.swap,
            "direction": self.direction,
            "average": self.average,
        }

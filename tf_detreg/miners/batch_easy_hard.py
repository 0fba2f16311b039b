"""One positive and one negative for each anchor: the easiest, the hardest, or a semi-hard one."""

from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.distances import masked_max, masked_min
from tf_detreg.losses.pairs import Mined, MinedPairs, Pairs
from tf_detreg.miners.base import Miner

STRATEGIES = ("easy", "hard", "semi_hard", "all")


@keras.saving.register_keras_serializable("tf_detreg", name="BatchEasyHardMiner")
class BatchEasyHard(Miner):
    """For each anchor one positive and one negative, chosen by a strategy.

    Positives: `"easy"` is the nearest, `"hard"` the farthest, `"semi_hard"` the farthest that is nearer than the
    chosen negative. Negatives: `"easy"` is the farthest, `"hard"` the nearest, `"semi_hard"` the nearest that is
    farther than the chosen positive. `"all"` keeps every pair of that side. Only one side can be `"semi_hard"`, and
    then the other is `"easy"` or `"hard"`. Anchors for which one side finds nothing keep no pair (unless a side is
    `"all"`: then each side stands for itself).

    Paper settings: easy positives with semi-hard negatives (EPSHN) or hard ones (EPHN), and the logarithmic softmax of
    the two similarities over 0.1 as the loss (`losses.NTXent(0.1, miner=...)`).
    Other code: the authors pass over positives with a similarity above 0.9999 (duplicates), and over anchors whose
    chosen positive or negative has a similarity of 0 or below. Equals pytorch-metric-learning's `BatchEasyHardMiner`.

    Args:
        positives: Strategy for the positives. Default `"easy"`.
        negatives: Strategy for the negatives. Default `"semi_hard"`.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedPairs`: two boolean masks `(B, B)`, with at most one entry in each row.

    Raises:
        ValueError: For labels of a wrong type, shape or range, or strategies that do not go together.

    Example:

    >>> kept = BatchEasyHard("hard", "hard")([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> kept.negatives.numpy().tolist()
    [[False, False, True], [False, False, True], [False, False, False]]

    Reference: Xuan et al., "Improved Embeddings with Easy Positive Triplet Mining", WACV 2020.
    """

    def __init__(self, positives: str = "easy", negatives: str = "semi_hard") -> None:
        for side, strategy in (("positives", positives), ("negatives", negatives)):
            checks.choice(side, strategy, STRATEGIES)
        if "semi_hard" in (positives, negatives) and {positives, negatives} <= {"semi_hard", "all"}:
            raise checks.invalid(
                "positives",
                "be easy or hard where `negatives` is semi_hard, and the reverse, to compare with",
                f"positives={positives!r}, negatives={negatives!r}",
            )
        self.positives = positives
        self.negatives = negatives

    def choose(self, pairs: Pairs) -> Mined:
        matrix = pairs.matrix
        positives, negatives = pairs.positives, pairs.negatives
        if self.positives == "semi_hard":
            negatives = _one(matrix, negatives, nearest=self.negatives == "hard")
            limit = masked_min(matrix, negatives)
            positives = _one(matrix, positives & (matrix < limit) & tf.math.is_finite(limit), nearest=False)
        else:
            if self.positives != "all":
                positives = _one(matrix, positives, nearest=self.positives == "easy")
            if self.negatives == "semi_hard":
                limit = masked_max(matrix, positives)
                negatives &= (matrix > limit) & tf.math.is_finite(limit)
            if self.negatives != "all":
                negatives = _one(matrix, negatives, nearest=self.negatives != "easy")
        if "all" in (self.positives, self.negatives):
            return MinedPairs(positives, negatives)
        both = tf.reduce_any(positives, axis=1, keepdims=True) & tf.reduce_any(negatives, axis=1, keepdims=True)
        return MinedPairs(positives & both, negatives & both)

    def get_config(self) -> dict[str, Any]:
        return {"positives": self.positives, "negatives": self.negatives}


def _one(matrix: tf.Tensor, mask: tf.Tensor, nearest: bool) -> tf.Tensor:
    """Return the nearest or farthest entry of each row of a mask; of equal ones the first."""
    key = tf.where(mask, matrix if nearest else -matrix, float("inf"))
    place = tf.argmin(key, axis=1, output_type=tf.int32)
    return mask & (tf.range(tf.shape(matrix)[1])[None, :] == place[:, None])

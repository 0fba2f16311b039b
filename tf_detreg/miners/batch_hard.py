"""Each anchor's farthest positive and nearest negative."""

import keras

from tf_detreg.losses.pairs import Mined, Pairs
from tf_detreg.miners.base import Miner
from tf_detreg.miners.batch_easy_hard import BatchEasyHard


@keras.saving.register_keras_serializable("tf_detreg", name="BatchHardMiner")
class BatchHard(Miner):
    """For each anchor its farthest positive and its nearest negative.

    Other code: equals pytorch-metric-learning's `BatchHardMiner`.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedPairs`: two boolean masks `(B, B)`, with at most one entry in each row.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> kept = BatchHard()([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> kept.positives.numpy().tolist()
    [[False, True, False], [True, False, False], [False, False, False]]

    Reference: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """

    def choose(self, pairs: Pairs) -> Mined:
        return BatchEasyHard("hard", "hard").choose(pairs)

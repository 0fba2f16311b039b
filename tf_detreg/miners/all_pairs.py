"""Every pair of a batch: the miner that leaves nothing out."""

import keras

from tf_detreg.losses.pairs import Mined, MinedPairs, Pairs
from tf_detreg.miners.base import Miner


@keras.saving.register_keras_serializable("tf_detreg", name="AllPairsMiner")
class AllPairs(Miner):
    """All positive and negative pairs, as if no miner were given; a starting point and a control for studies.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedPairs`: two boolean masks `(B, B)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> kept = AllPairs()([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> kept.positives.numpy().tolist()
    [[False, True, False], [True, False, False], [False, False, False]]
    """

    def choose(self, pairs: Pairs) -> Mined:
        return MinedPairs(pairs.positives, pairs.negatives)

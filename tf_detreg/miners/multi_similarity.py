"""Pairs that are harder than the hardest pair of the other kind, within a margin."""

from typing import Any

import keras

from tf_detreg import checks
from tf_detreg.losses.distances import masked_max, masked_min
from tf_detreg.losses.pairs import Mined, MinedPairs, Pairs
from tf_detreg.miners.base import Miner


@keras.saving.register_keras_serializable("tf_detreg", name="MultiSimilarityMiner")
class MultiSimilarity(Miner):
    r"""Multi-similarity: negatives nearer than the farthest positive, positives farther than the nearest negative.

    `N'(i) = {n : s_in + ε > min_{p∈P(i)} s_ip}`,  `P'(i) = {p : s_ip - ε < max_{n∈N(i)} s_in}`

    with similarity `s`. An anchor without a positive keeps no negative, and the other way round.

    Paper settings: ε = 0.1.
    Other code: the authors also drop positives with `s >= 1 - 1e-5`, to get rid of each sample's pair with itself,
    which does not occur here; a duplicate of the
    anchor stays. They skip anchors of which one side is left empty, and stop with an error at a class with one sample.

    Args:
        epsilon: ε. Default 0.1.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`.

    Returns:
        `MinedPairs`: two boolean masks `(B, B)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> kept = MultiSimilarity()([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> kept.negatives.numpy().tolist()
    [[False, False, True], [False, False, True], [False, False, False]]

    Reference: Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        self.epsilon = checks.number("epsilon", epsilon)

    def choose(self, pairs: Pairs) -> Mined:
        similarities = pairs.similarities
        lowest = masked_min(similarities, pairs.positives)
        highest = masked_max(similarities, pairs.negatives)
        return MinedPairs(
            positives=pairs.positives & (similarities - self.epsilon < highest),
            negatives=pairs.negatives & (similarities + self.epsilon > lowest),
        )

    def get_config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}

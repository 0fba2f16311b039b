"""Miners: which pairs or triplets of a batch count."""

from tf_detreg.miners.base import Miner
from tf_detreg.miners.multi_similarity import MultiSimilarity

__all__ = ["Miner", "MultiSimilarity"]

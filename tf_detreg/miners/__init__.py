"""Miners: which pairs or triplets of a batch count. Losses take them as `miner=`."""

from tf_detreg.miners.all_pairs import AllPairs
from tf_detreg.miners.angular import Angular
from tf_detreg.miners.base import Miner
from tf_detreg.miners.batch_easy_hard import BatchEasyHard
from tf_detreg.miners.batch_hard import BatchHard
from tf_detreg.miners.distance_weighted import DistanceWeighted
from tf_detreg.miners.hard import Hard
from tf_detreg.miners.multi_similarity import MultiSimilarity
from tf_detreg.miners.semi_hard import SemiHard

__all__ = [
    "AllPairs",
    "Angular",
    "BatchEasyHard",
    "BatchHard",
    "DistanceWeighted",
    "Hard",
    "Miner",
    "MultiSimilarity",
    "SemiHard",
]

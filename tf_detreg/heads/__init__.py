"""Embedding heads: an invertible map with a Jacobian that can be read off, and the baselines to compare it with.

Where to start reading: `base.py` (the contract), `flow.py` (what flows add), `real_nvp.py` (the method), `measures.py`
(the penalty), `dueling.py`.
"""

from tf_detreg.heads.base import Head
from tf_detreg.heads.dueling import Dueling
from tf_detreg.heads.ffjord import FFJORD
from tf_detreg.heads.flow import FlowHead
from tf_detreg.heads.glow import Glow
from tf_detreg.heads.linear import Linear
from tf_detreg.heads.nice import NICE
from tf_detreg.heads.real_nvp import RealNVP
from tf_detreg.heads.residual_mlp import ResidualMLP

__all__ = ["FFJORD", "NICE", "Dueling", "FlowHead", "Glow", "Head", "Linear", "RealNVP", "ResidualMLP"]

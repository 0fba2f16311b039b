"""Embedding heads: an invertible map with a Jacobian that can be read off, and the baselines to compare it with."""

from tf_detreg.heads.base import FlowHead
from tf_detreg.heads.dueling import Dueling
from tf_detreg.heads.linear import Linear
from tf_detreg.heads.real_nvp import RealNVP

__all__ = ["Dueling", "FlowHead", "Linear", "RealNVP"]

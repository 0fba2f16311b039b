"""Penalties beside the metric loss: each reads what it needs from a small context."""

from tf_detreg.regularizers.base import Context, Regularizer
from tf_detreg.regularizers.hyperspherical_energy import HypersphericalEnergy
from tf_detreg.regularizers.language_guidance import LanguageGuidance, embed_names, top_class_names
from tf_detreg.regularizers.lipschitz import Lipschitz
from tf_detreg.regularizers.log_exp_mean import LogExpMean
from tf_detreg.regularizers.non_isotropy import NonIsotropy
from tf_detreg.regularizers.power_mean import PowerMean
from tf_detreg.regularizers.regular_face import RegularFace
from tf_detreg.regularizers.sentence_encoder import SentenceEncoder
from tf_detreg.regularizers.uniform_loss import UniformLoss
from tf_detreg.regularizers.uniformity import Uniformity

__all__ = [
    "Context",
    "HypersphericalEnergy",
    "LanguageGuidance",
    "Lipschitz",
    "LogExpMean",
    "NonIsotropy",
    "PowerMean",
    "RegularFace",
    "Regularizer",
    "SentenceEncoder",
    "UniformLoss",
    "Uniformity",
    "embed_names",
    "top_class_names",
]

"""Training: the model with its objective, optimizer groups, callbacks and resumable runs."""

from tf_detreg.training.interpolation import Interpolation
from tf_detreg.training.metric_model import MetricModel

__all__ = ["Interpolation", "MetricModel"]

"""Training: the model with its objective, optimizer groups, callbacks and resumable runs."""

from tf_detreg.training.interpolation import Interpolation
from tf_detreg.training.metric_model import MetricModel
from tf_detreg.training.optimizers import GroupedOptimizer, averaged, optimizer
from tf_detreg.training.schedules import WarmUpDecay

__all__ = ["GroupedOptimizer", "Interpolation", "MetricModel", "WarmUpDecay", "averaged", "optimizer"]

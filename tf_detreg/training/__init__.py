"""Training: the model with its objective, optimizer groups, callbacks and resumable runs."""

from tf_detreg.retrieval.embedding import Embedded, embed
from tf_detreg.training.config import RunConfig
from tf_detreg.training.guard import TrainingDiverged
from tf_detreg.training.interpolation import Interpolation
from tf_detreg.training.metric_model import MetricModel
from tf_detreg.training.optimizers import GroupedOptimizer, averaged, optimizer
from tf_detreg.training.run import Run, assemble, load_run, train
from tf_detreg.training.schedules import WarmUpDecay

__all__ = [
    "Embedded",
    "GroupedOptimizer",
    "Interpolation",
    "MetricModel",
    "Run",
    "RunConfig",
    "TrainingDiverged",
    "WarmUpDecay",
    "assemble",
    "averaged",
    "embed",
    "load_run",
    "optimizer",
    "train",
]

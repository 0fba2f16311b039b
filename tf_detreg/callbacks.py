"""Keras callbacks for training embeddings. They work with `MetricModel` and with plain Keras models alike."""

from tf_detreg.training.averaging import WeightAveraging
from tf_detreg.training.guard import NaNGuard, TrainingDiverged
from tf_detreg.training.health import Health
from tf_detreg.training.projector import EmbeddingProjector
from tf_detreg.training.retrieval_evaluation import RetrievalEvaluation
from tf_detreg.training.table_log import TableLog
from tf_detreg.training.time_left import TimeLeft
from tf_detreg.training.unfreezing import GradualUnfreezing

__all__ = [
    "EmbeddingProjector",
    "GradualUnfreezing",
    "Health",
    "NaNGuard",
    "RetrievalEvaluation",
    "TableLog",
    "TimeLeft",
    "TrainingDiverged",
    "WeightAveraging",
]

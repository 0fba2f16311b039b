"""Stops a training that has blown up, with the last weights that were good."""

import logging
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import checks

logger = logging.getLogger(__name__)


class TrainingDiverged(ValueError):
    """The objective became NaN or infinite; the text says which term, when, and what to try."""


class NaNGuard(keras.callbacks.Callback):
    """Watches the objective's terms after each batch; at the first NaN or infinity it stops and steps back.

    Stepping back means the state of the last snapshot, weights and optimizer. One is taken at the start, every `every`
    batches and after each epoch, and kept only if all of it is finite. `reason` then says which term blew up; it is
    logged as an error too.

    Args:
        every: Batches from one snapshot to the next. Default 100.

    Example:
        >>> guard = NaNGuard()
        >>> guard.reason is None
        True
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__()
        self.every = checks.integer("every", every, 1)
        self.reason: str | None = None
        self._good: list[np.ndarray] = []
        self._seen = self._good_at = self._epoch = self._batch = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._seen, self.reason = 0, None
        self._take_snapshot()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._seen += 1
        self._batch = batch
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(float(np.mean(value)))]
        if bad:
            self._step_back([name for name in bad if name != "loss"] or ["loss"])
        elif self._seen % self.every == 0:
            self._take_snapshot()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.reason is None:
            self._take_snapshot()

    def _state(self) -> list[keras.Variable]:
        """Return weights, and the optimizer's averages, which a NaN spoils too."""
        return [*self.model.weights, *self.model.optimizer.variables]

    def _take_snapshot(self) -> None:
        """Keep the weights if they are good. A NaN in them need not show in the terms: `relu` turns it into 0."""
        values = [variable.numpy() for variable in self._state()]
        if all(np.isfinite(value).all() for value in values if tf.as_dtype(value.dtype).is_floating):
            self._good, self._good_at = values, self._seen
        elif self._good:
            self._step_back(["the weights"])
        else:
            raise TrainingDiverged("The weights are NaN or infinite before training has begun: load or make them anew.")

    def _step_back(self, terms: Any) -> None:
        for variable, value in zip(self._state(), self._good, strict=True):
            variable.assign(value)
        self.reason = (
            f"Training stopped in epoch {self._epoch + 1} at batch {self._batch + 1}: {', '.join(terms)} became NaN or "
            f"infinite. The weights are those of {self._seen - self._good_at} batch(es) earlier. "
        )
        self.reason += (
            "Lower the weight of this term or the learning rate, or clip gradients (clipnorm=1)."
            if len(terms) == 1 and terms != ["the weights"]
            else "Look for NaN in the images, lower the learning rates, or clip gradients (clipnorm=1)."
        )
        logger.error(self.reason)
        self.model.stop_training = True

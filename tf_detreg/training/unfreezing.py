"""Gradual unfreezing: a pretrained backbone wakes up from its top, stage by stage."""

import keras

from tf_detreg import checks


class GradualUnfreezing(keras.callbacks.Callback):
    """Freezes the backbone at first and frees it from its top downwards, one stage every few epochs.

    The optimizer keeps the state of all weights throughout, so nothing restarts, and a run that resumes in the middle
    goes on with the stage of its epoch. Frozen BatchNorm layers use and keep their running statistics.

    Args:
        start: First epoch (from 0) in which the top stage trains. Default 1.
        every: Epochs from one stage to the next. Default 1.
        stages: Number of stages that the layers with weights are divided into. Default 4.
        keep_batch_norm: Whether BatchNorm layers stay frozen for good. Default true.

    Raises:
        ValueError: If a number is out of range; at the start of training, if the model has no `backbone`.

    Example:
        >>> unfreezing = GradualUnfreezing(start=2, every=3, stages=2)
        >>> [unfreezing.share(epoch) for epoch in (0, 1, 2, 4, 5, 9)]
        [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]

    Reference:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    """

    def __init__(self, start: int = 1, every: int = 1, stages: int = 4, keep_batch_norm: bool = True) -> None:
        super().__init__()
        for name, value, least in (("start", start, 0), ("every", every, 1), ("stages", stages, 1)):
            checks.integer(name, value, least)
        self.start, self.every, self.stages, self.keep_batch_norm = start, every, stages, keep_batch_norm
        self._share: float | None = None

    def share(self, epoch: int) -> float:
        """Return the share of the backbone's layers that train in an epoch."""
        return min(self.stages, max(0, (epoch - self.start) // self.every + 1)) / self.stages

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not hasattr(self.model, "backbone"):
            raise ValueError("GradualUnfreezing needs a model with a `backbone`, such as training.MetricModel.")
        self._share = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        from tf_detreg import backbones

        if self.share(epoch) != self._share:
            self._share = self.share(epoch)
            backbones.unfreeze(self.model.backbone, self._share, self.keep_batch_norm)
            # What trains is written into the compiled step.
            self.model.make_train_function(force=True)

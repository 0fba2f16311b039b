"""What a run keeps of each epoch."""

import pathlib
from typing import TYPE_CHECKING, Any

import keras

from tf_detreg.backbones import has_lora, merge_lora, save_adapter
from tf_detreg.files import replacing
from tf_detreg.training import checkpoint
from tf_detreg.training.config import RunConfig
from tf_detreg.training.optimizers import averaged
from tf_detreg.training.retrieval_evaluation import RetrievalEvaluation, has_pairs
from tf_detreg.training.run_directory import ADAPTER, BEST, CHECKPOINTS, HISTORY, naming_the_last_checkpoint
from tf_detreg.training.table_log import TableLog

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet


class Keeper(keras.callbacks.Callback):
    """At the end of an epoch, evaluates, keeps the best embedder, writes the history and last of all the checkpoint.

    Args:
        directory: Of the run.
        config: Of the run.
        embedder: What is saved, images → unit vectors, also where the head alone is trained.
        validation: The image or feature set that the best epoch is chosen on.
        notes: What the last checkpoint says of the epochs before, or `FIRST_NOTES`.
        writes: Whether this process writes the run. Default true.
        checkpoints: How many of the newest are kept. Default 2.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        config: RunConfig,
        embedder: keras.Model,
        validation: "ImageSet | None",
        notes: dict[str, Any],
        writes: bool = True,
        checkpoints: int = 2,
    ) -> None:
        super().__init__()
        self.directory, self.config, self.embedder, self.notes, self.writes = directory, config, embedder, notes, writes
        self.monitor, self.checkpoints = f"val_{config.monitor}", checkpoints
        self.evaluation = None
        if validation is not None and has_pairs(validation):
            self.evaluation = RetrievalEvaluation(validation, k=config.k, every=config.evaluate_every)
        self.table = TableLog(directory / HISTORY, notes["rows"])

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        if self.evaluation is not None:
            self.evaluation.set_model(model)

    def patience_is_over(self) -> bool:
        """Return whether `patience` evaluations have passed without a new best."""
        return bool(self.config.patience) and self.notes["waited"] >= self.config.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.model.stop_training:
            # The guard stepped back: this epoch is not one to go on from.
            return
        if self.evaluation is not None:
            self.evaluation.on_epoch_end(epoch, logs)
        with naming_the_last_checkpoint(self.directory):
            self._keep_best(logs)
            if self.writes:
                self.table.on_epoch_end(epoch, logs)
                notes = {**self.notes, "rows": self.table.rows}
                notes.pop("epoch")
                checkpoint.save(self.model, self.directory / CHECKPOINTS, epoch + 1, notes, self.checkpoints)
        if self.patience_is_over():
            self.model.stop_training = True

    def save_embedder(self) -> None:
        """Write the embedder as the best one, with averaged weights where the optimizer keeps an average.

        Low-rank factors are merged into its weights; a file of their own holds them, too.
        """
        with averaged(self.model):
            if has_lora(self.embedder):
                save_adapter(self.embedder, self.directory / ADAPTER)
            with replacing(self.directory / BEST) as temporary:
                merge_lora(self.embedder).save(temporary)

    def _keep_best(self, logs: dict[str, float] | None) -> None:
        # Without an evaluation the last epoch is the best.
        value = (logs or {}).get(self.monitor)
        if value is None and self.evaluation is not None:
            return
        best = self.notes["best"]
        if best is None or value is None or value > best:
            self.notes = {**self.notes, "best": value, "waited": 0}
            if self.writes:
                self.save_embedder()
        else:
            self.notes = {**self.notes, "waited": self.notes["waited"] + 1}


FIRST_NOTES: dict[str, Any] = {"epoch": 0, "rows": [], "best": None, "waited": 0}

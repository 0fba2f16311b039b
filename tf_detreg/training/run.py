"""Training as a run: a directory that says what was done, can be resumed at any moment, and holds the result.

config.json      the configuration, the data's fingerprint, versions
checkpoints/     the whole state after the last epochs
best.keras       the embedder of the best epoch so far
adapter.npz      with LoRA, what of the best epoch was trained
averaged.keras   with `averaging`, the best average of weights; averaging.json has all of them
embedder.keras   the result: the best embedder, once the run has ended
history.csv      every logged quantity, one row an epoch
evaluation.json  retrieval on the validation and test classes
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from tf_detreg import _compat
from tf_detreg.files import existing, read_json
from tf_detreg.training import assembly, distribution, run_directory, stages
from tf_detreg.training.claim import claimed
from tf_detreg.training.config import RunConfig
from tf_detreg.training.moved_data import check_same_data, moved
from tf_detreg.training.run_directory import BEST, CONFIG, EMBEDDER, EVALUATION, HISTORY, read_evaluation
from tf_detreg.training.table_log import from_csv

if TYPE_CHECKING:
    from tf_detreg.datasets import Splits


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory, as `train` leaves it and `load_run` finds it.

    Args:
        directory: Where it lies.
        config: Its configuration.
    """

    directory: pathlib.Path
    config: RunConfig

    @property
    def finished(self) -> bool:
        """Return whether the result has been written."""
        return (self.directory / EMBEDDER).is_file()

    @functools.cached_property
    def embedder(self) -> keras.Model:
        """Return the result, or the best embedder so far while the run has not ended."""
        from tf_detreg.models import load

        path = self.directory / (EMBEDDER if self.finished else BEST)
        if not path.is_file():
            raise ValueError(f"The run {self.directory} has no embedder yet: no epoch has ended.")
        return load(path)

    @property
    def history(self) -> list[dict[str, float]]:
        """Return a mapping for each epoch."""
        path = self.directory / HISTORY
        return from_csv(path) if path.is_file() else []

    @property
    def evaluation(self) -> dict[str, Any]:
        """Return what `evaluation.json` says; empty before the end.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.directory / EVALUATION
        try:
            return read_evaluation(path) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{error} `tf-detreg train --run {self.directory} --resume` computes it again.") from error

    def splits(self) -> "Splits":
        """Load its data anew.

        Raises:
            ValueError: If they were said to have moved and are not those that the run was trained on.
        """
        splits = assembly.load_splits(self.config)
        record = read_json(self.directory / CONFIG)
        if record.get("config", {}).get("data") != self.config.to_dict()["data"]:
            check_same_data(record.get("data") or {}, assembly.data_facts(splits), self.config.data, self.directory)
        return splits


def load_run(directory: str | os.PathLike[str], data: str | None = None) -> Run:
    """Open a run directory.

    Args:
        directory: The run's.
        data: Where its images are now, if they have moved: a folder or .csv file, or `LOADER:WHERE`. Default: where
            the run found them. They are compared with the run's record when they are loaded.

    Raises:
        FileNotFoundError: If there is no such directory.
        ValueError: If it is not one.
    """
    directory = existing(directory, "directory", "Give the directory of a run, as `tf-detreg train` made it.")
    if not (directory / CONFIG).is_file():
        raise ValueError(f"{str(directory)!r} is not the directory of a run: it has no {CONFIG}.")
    config = RunConfig.load(directory / CONFIG)
    return Run(directory, config if data is None else moved(config, data))


@_compat.forgetting_gradients()
def train(
    config: RunConfig,
    directory: str | os.PathLike[str],
    *,
    resume: bool = False,
    splits: "Splits | None" = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> Run:
    """Train an embedder and leave a run directory.

    Killed at any moment and called again with `resume=True`, it ends with the weights that an unbroken run would have:
    each epoch leaves the whole state behind, optimizer, random states and the best epoch included, and what an epoch
    sees follows from the seed and its number. The graphs of its training steps are let go of in the end, so that a
    process can train one model after the other.

    Args:
        config: What to do.
        directory: Where to leave it. Made if it is not there.
        resume: Whether to go on with the run that is there; if none is, one begins. Images that have moved since are
            accepted where their fingerprint is the run's. Default false.
        splits: The data as `datasets.Splits`, if loaded already or made by hand. Default: what `config.data` names.
        callbacks: Further Keras callbacks. Default: none.
        verbose: Of `keras.Model.fit`. Default `"auto"`.

    Returns:
        The finished run.

    Raises:
        ValueError: If the directory holds another run, or something else, or another process trains there; if the
            configuration cannot be met.
        OSError: If the directory cannot be written to, or its disk fills up; what was kept before stays whole.
        TrainingDiverged: If the objective became NaN or infinite. `embedder.keras` then holds the best epoch before, or
            the last good weights where no epoch had ended.

    Example:
        >>> import tempfile
        >>> config = RunConfig.from_dict({"data": "digits", "head": {"name": "Linear", "dim": 8}, "epochs": 1})
        >>> run = train(config, tempfile.mkdtemp(), verbose=0)
        >>> sorted(run.evaluation)
        ['test', 'validation']
    """
    directory = pathlib.Path(directory)
    place = distribution.open_place(config.strategy)
    run = Run(directory, config)
    # In a cluster the chief alone writes, so it alone claims the directory.
    with claimed(directory) if place.chief else contextlib.nullcontext():
        if place.chief:
            run_directory.prepare(directory, resume)
        data = stages.load_data(config, place, splits)
        run_directory.compare(directory, data.record, place.chief)
        with stages.settings(config):
            if not run.finished:
                assembled = stages.build_model(stages.build_embedder(data))
                # Only now, so that a configuration that cannot be built leaves no run behind.
                stages.write_config(data, directory)
                stages.finish(stages.fit(assembled, directory, callbacks, verbose))
            elif place.chief and not _is_evaluated(run):
                embedder = run.embedder
                stages.evaluate(stages.with_features(data, embedder) if config.features else data, embedder, directory)
    return run


def assemble(config: RunConfig, splits: "Splits | None" = None) -> stages.Assembled:
    """Build everything that a configuration's training needs, without a run directory.

    For trainings that leave nothing behind, such as the trials of a study. `train` makes and fits the same.

    Args:
        config: What to build.
        splits: As in `train`. Default: what `config.data` names.

    Returns:
        Embedder, compiled model, training batches and data.

    Raises:
        ValueError: If the configuration cannot be met.

    Example:
        >>> config = RunConfig.from_dict({"data": "digits", "head": {"name": "Linear", "dim": 8}, "classes": 6})
        >>> parts = assemble(config)
        >>> history = parts.model.fit(parts.batches(), epochs=1, verbose=0)
        >>> parts.embedder.output_shape
        (None, 8)
    """
    data = stages.load_data(config, distribution.open_place(config.strategy), splits)
    with stages.settings(config):
        return stages.build_model(stages.build_embedder(data))


def _is_evaluated(run: Run) -> bool:
    """Return whether its evaluation is there and can be read."""
    try:
        return (run.directory / EVALUATION).is_file() and isinstance(run.evaluation, dict)
    except ValueError:
        return False

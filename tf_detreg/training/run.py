"""Training as a run: a directory that says what was done, can be resumed at any moment, and holds the result.

config.json      the configuration, the data's fingerprint, versions
checkpoints/     the whole state after the last epochs
best.keras       the embedder of the best epoch so far
embedder.keras   the result: the best embedder, once the run has ended
history.csv      every logged quantity, one row an epoch
evaluation.json  retrieval on the validation and test classes
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from tf_detreg.files import read_json, replacing, write_json
from tf_detreg.training import assembly, checkpoint, distribution
from tf_detreg.training.claim import LOCK, claimed
from tf_detreg.training.config import RunConfig, differences
from tf_detreg.training.guard import NaNGuard, TrainingDiverged
from tf_detreg.training.moved_data import check_same_data, moved
from tf_detreg.training.optimizers import averaged
from tf_detreg.training.retrieval_evaluation import RetrievalEvaluation, final_evaluation, has_pairs
from tf_detreg.training.table_log import TableLog, from_csv
from tf_detreg.training.unfreezing import GradualUnfreezing

CONFIG, CHECKPOINTS, BEST, EMBEDDER = "config.json", "checkpoints", "best.keras", "embedder.keras"
HISTORY, EVALUATION = "history.csv", "evaluation.json"
_PROBE = ".writable"


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
        """Whether the result has been written."""
        return (self.directory / EMBEDDER).is_file()

    @functools.cached_property
    def embedder(self) -> keras.Model:
        """The result, or the best embedder so far while the run has not ended."""
        from tf_detreg.models import load

        path = self.directory / (EMBEDDER if self.finished else BEST)
        if not path.is_file():
            raise ValueError(f"The run {self.directory} has no embedder yet: no epoch has ended.")
        return load(path)

    @property
    def history(self) -> list[dict[str, float]]:
        """A mapping for each epoch."""
        path = self.directory / HISTORY
        return from_csv(path) if path.is_file() else []

    @property
    def evaluation(self) -> dict:
        """What `evaluation.json` says; empty before the end.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.directory / EVALUATION
        try:
            return read_json(path) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{error} `tf-detreg train --run {self.directory} --resume` computes it again.") from error

    def splits(self):
        """Load its data anew.

        Raises:
            ValueError: If they were said to have moved and are not those that the run was trained on.
        """
        splits = assembly.load_splits(self.config)
        record = read_json(self.directory / CONFIG)
        if record.get("config", {}).get("data") != self.config.to_dict()["data"]:
            check_same_data(record.get("data") or {}, assembly.data_facts(splits), self.config.data, self.directory)
        return splits


def load_run(directory: str | os.PathLike, data: str | None = None) -> Run:
    """Open a run directory.

    Args:
        directory: The run's.
        data: Where its images are now, if they have moved: a folder or .csv file, or `LOADER:WHERE`. Default: where
            the run found them. They are compared with the run's record when they are loaded.

    Raises:
        ValueError: If it is not one.
    """
    directory = pathlib.Path(directory)
    if not (directory / CONFIG).is_file():
        raise ValueError(f"{str(directory)!r} is not the directory of a run: it has no {CONFIG}.")
    config = RunConfig.load(directory / CONFIG)
    return Run(directory, config if data is None else moved(config, data))


def train(
    config: RunConfig,
    directory: str | os.PathLike,
    *,
    resume: bool = False,
    splits=None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> Run:
    """Trains an embedder and leaves a run directory.

    Killed at any moment and called again with `resume=True`, it ends with the weights that an unbroken run would have:
    each epoch leaves the whole state behind, optimizer, random states and the best epoch included, and what an epoch
    sees follows from the seed and its number.

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
    # In a cluster the chief alone writes, so it alone claims the directory.
    with claimed(directory) if place.chief else contextlib.nullcontext():
        if place.chief:
            _prepare(directory, resume)
        splits = assembly.load_splits(config) if splits is None else splits
        _check_data(splits)
        record = {"config": config.to_dict(), "data": assembly.data_facts(splits)}
        _compare(directory, record, place.chief)
        run = Run(directory, config)
        if not run.finished:
            assembly.check_batches(config, splits.train)
            with _settings(config):
                _train(run, record, splits, place, list(callbacks), verbose)
        elif place.chief and not _is_evaluated(run):
            with _settings(config):
                _evaluate(run, run.embedder, _features(run.embedder, splits) if config.features else splits)
    return run


def _train(run: Run, record: dict, splits, place, callbacks, verbose):
    config, folder = run.config, run.directory / CHECKPOINTS
    keras.utils.set_random_seed(config.seed)
    with place.strategy.scope():
        embedder = trained = assembly.build_embedder(config, splits.train.image_size)
        if config.features:
            splits, trained = _features(embedder, splits), assembly.head_on_features(embedder)
        batches = _batches(config, splits.train)
        steps = int(batches().cardinality())
        model = assembly.build_model(config, splits.train, trained, steps)
        model.optimizer.build(model.trainable_variables)
    if place.chief and not (run.directory / CONFIG).is_file():
        # Only now, so that a configuration that cannot be built leaves no run behind.
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        write_json(run.directory / CONFIG, {**record, "versions": versions})
    notes = {"epoch": 0, "rows": [], "best": None, "waited": 0}
    saved = checkpoint.checkpoints(folder)
    if saved:
        notes = checkpoint.restore(model, saved[-1])
    guard = NaNGuard()
    # What is kept is the whole embedder, also where the head alone is trained.
    keeper = _Keeper(run, embedder if config.features else model.embedder, splits.validation, notes, place.chief)
    extra = [GradualUnfreezing(**config.unfreezing)] if config.unfreezing is not None else []
    if not keeper.patience_is_over():
        model.fit(
            place.distribute(batches(first_epoch=notes["epoch"])),
            epochs=config.epochs,
            initial_epoch=notes["epoch"],
            steps_per_epoch=steps if place.strategy.num_replicas_in_sync > 1 else None,
            shuffle=False,
            callbacks=[guard, *extra, keeper, *callbacks],
            verbose=verbose,
        )
    if place.chief:
        with _telling_what_is_safe(run):
            if not (run.directory / BEST).is_file():
                keeper.save_embedder()
            _finish(run, splits, guard.reason)


def _batches(config: RunConfig, train):
    """Makes the training batches of a configuration, given the first epoch."""
    options = {}
    if not config.features:
        options = {"augment": assembly.augmentation(config)}
        if config.crop is not None:
            options["crop"] = _crop(config)
    return functools.partial(train.batches, config.classes, config.images, seed=config.seed, **options)


def _features(embedder, splits):
    from tf_detreg.datasets.feature_cache import cache_features

    # The backbone itself: what `split_embedder` makes is named anew each time, and the cache goes by names too.
    return cache_features(embedder.layers[0], splits)


class _Keeper(keras.callbacks.Callback):
    """At the end of an epoch: evaluate, keep the best, note down the history, and last of all the checkpoint."""

    def __init__(self, run: Run, embedder, validation, notes: dict, writes: bool):
        super().__init__()
        self.run, self.embedder, self.notes, self.writes = run, embedder, notes, writes
        config = run.config
        self.monitor = f"val_{config.monitor}"
        self.evaluation = None
        if has_pairs(validation):
            self.evaluation = RetrievalEvaluation(validation, k=config.k, every=config.evaluate_every)
        self.table = TableLog(run.directory / HISTORY, notes["rows"])

    def set_model(self, model):
        super().set_model(model)
        if self.evaluation is not None:
            self.evaluation.set_model(model)

    def patience_is_over(self) -> bool:
        patience = self.run.config.patience
        return bool(patience) and self.notes["waited"] >= patience

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training:
            # The guard stepped back: this epoch is not one to go on from.
            return
        if self.evaluation is not None:
            self.evaluation.on_epoch_end(epoch, logs)
        with _telling_what_is_safe(self.run):
            self._keep_best(logs)
            if self.writes:
                self.table.on_epoch_end(epoch, logs)
                notes = {**self.notes, "rows": self.table.rows}
                notes.pop("epoch")
                checkpoint.save(self.model, self.run.directory / CHECKPOINTS, epoch + 1, notes)
        if self.patience_is_over():
            self.model.stop_training = True

    def save_embedder(self):
        with averaged(self.model), replacing(self.run.directory / BEST) as temporary:
            self.embedder.save(temporary)

    def _keep_best(self, logs):
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


@contextlib.contextmanager
def _telling_what_is_safe(run: Run) -> Iterator[None]:
    """Says of a disk that is full, or gone, what of the run is there all the same."""
    try:
        yield
    except OSError as error:
        saved = checkpoint.checkpoints(run.directory / CHECKPOINTS)
        state = f"Its last whole checkpoint is {saved[-1].name}" if saved else "It has no checkpoint yet"
        raise OSError(
            error.errno,
            f"The run cannot be written ({error.strerror or error}). {state}; what is there is unharmed. Make room, "
            "then go on with resume=True (--resume)",
            str(run.directory),
        ) from error


def _finish(run: Run, splits, diverged: str | None):
    """Writes the evaluation, and the result last: its presence says that the run is finished."""
    best = run.directory / BEST
    _evaluate(run, keras.models.load_model(best, compile=False), splits)
    with replacing(run.directory / EMBEDDER) as temporary:
        shutil.copyfile(best, temporary)
    if diverged:
        raise TrainingDiverged(diverged)


def _is_evaluated(run: Run) -> bool:
    """Whether its evaluation is there and can be read."""
    try:
        return (run.directory / EVALUATION).is_file() and isinstance(run.evaluation, dict)
    except ValueError:
        return False


def _evaluate(run: Run, embedder: keras.Model, splits):
    """Writes the evaluation of an embedder; with `features`, `splits` hold what its backbone made of the images."""
    if run.config.features:
        embedder = assembly.head_on_features(embedder)
    reports = {}
    for name in ("validation", "test"):
        part = getattr(splits, name)
        # Some data sets come with a gallery that the test images are searched in.
        gallery = getattr(splits, "gallery", None) if name == "test" else None
        if has_pairs(part) or (gallery is not None and len(part)):
            reports[name] = final_evaluation(embedder, part, run.config.k, splits.train.class_names, gallery)
    write_json(run.directory / EVALUATION, reports)


def _prepare(directory: pathlib.Path, resume: bool):
    """Makes sure that the directory may be used, before anything costs time."""
    if not all(_is_scaffold(path.name) for path in directory.iterdir()):
        if not (directory / CONFIG).is_file():
            raise ValueError(f"directory={str(directory)!r} is not empty and not a run. Choose another place.")
        if not resume:
            raise ValueError(
                f"directory={str(directory)!r} already holds a run. Go on with it (resume=True, --resume), or choose "
                "another place."
            )
    with replacing(directory / _PROBE) as temporary:
        temporary.touch()
    (directory / _PROBE).unlink()
    # What a kill left half-written: temporary folders, which no one reads.
    for room in (directory, directory / CHECKPOINTS):
        for rest in room.glob(".*.*"):
            shutil.rmtree(rest, ignore_errors=True)


def _is_scaffold(name: str) -> bool:
    """Whether a file may lie in a directory before its run has begun: a kill leaves them behind."""
    return name in (LOCK, _PROBE) or name.startswith((f".{_PROBE}.", f".{CONFIG}."))


def _compare(directory: pathlib.Path, record: dict, writes: bool):
    """Make sure that a run that is there is this one; notes where its images are by now."""
    path = directory / CONFIG
    if not path.is_file():
        return
    theirs = read_json(path)
    for table in record:
        if not isinstance(theirs.get(table), dict):
            raise ValueError(f"{path} is damaged: it has no table {table!r}. Choose another directory.")
    facts = differences(theirs["data"], record["data"], "data: ")
    old, new = dict(theirs["config"]), dict(record["config"])
    where = old.get("data"), new["data"]
    if not facts:
        # The same images, wherever they are by now.
        old["data"] = new["data"]
    lines = differences(old, new) + facts
    if lines:
        raise ValueError(
            f"{str(directory)!r} is a run of another configuration:\n  "
            + "\n  ".join(lines)
            + "\nGo on with its own configuration, or choose another directory."
        )
    if writes and where[0] != where[1]:
        write_json(path, {**theirs, "config": record["config"]})


def _check_data(splits):
    if not len(splits.train) or splits.train.num_classes < 2:
        raise ValueError(
            f"The training set has {len(splits.train)} images of {splits.train.num_classes} classes; "
            "at least 2 classes are needed to learn to tell them apart."
        )


def _crop(config: RunConfig):
    from tf_detreg.datasets import RandomCrop

    return RandomCrop(**{key: tuple(value) for key, value in config.crop.items()})


@contextlib.contextmanager
def _settings(config: RunConfig) -> Iterator[None]:
    """The process-wide switches of a run, set back at the end."""
    from tensorflow.python.framework import config as switches

    policy, deterministic = keras.config.dtype_policy(), switches.is_op_determinism_enabled()
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic and not deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        if config.deterministic and not deterministic:
            switches.disable_op_determinism()

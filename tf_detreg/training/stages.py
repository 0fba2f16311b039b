"""The stages of a run in order: data, embedder, model, fit, evaluation, finish. Each takes the last one's result."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg._compat import disable_op_determinism, is_op_determinism_enabled
from tf_detreg.files import replacing, write_json
from tf_detreg.training import assembly, averaging, checkpoint
from tf_detreg.training.config import RunConfig
from tf_detreg.training.distribution import Place
from tf_detreg.training.guard import NaNGuard, TrainingDiverged
from tf_detreg.training.health import Health
from tf_detreg.training.keeper import FIRST_NOTES, Keeper
from tf_detreg.training.metric_model import MetricModel
from tf_detreg.training.retrieval_evaluation import final_evaluation, has_pairs
from tf_detreg.training.run_directory import (
    AVERAGED,
    BEST,
    CHECKPOINTS,
    CONFIG,
    EMBEDDER,
    EVALUATION,
    naming_the_last_checkpoint,
)
from tf_detreg.training.unfreezing import GradualUnfreezing


@contextlib.contextmanager
def settings(config: RunConfig) -> Iterator[None]:
    """Hold a run's process-wide switches, precision and determinism, while the block runs."""
    policy, deterministic = keras.config.dtype_policy(), is_op_determinism_enabled()
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic and not deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        if config.deterministic and not deterministic:
            disable_op_determinism()


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads: its configuration, its image sets, and the devices that it runs on."""

    config: RunConfig
    splits: Any
    place: Place

    @property
    def holds_features(self) -> bool:
        """Return whether the sets are features already, on which a head trains alone."""
        return hasattr(self.splits.train, "features")

    @functools.cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """Return what `config.json` says of a run."""
        return {"config": self.config.to_dict(), "data": assembly.data_facts(self.splits)}


def load_data(config: RunConfig, place: Place, splits: Any = None) -> Data:
    """Load what a configuration names, or take the given splits.

    Raises:
        ValueError: If the data are not there, or their training set has fewer than two classes.
    """
    splits = assembly.load_splits(config) if splits is None else splits
    if not len(splits.train) or splits.train.num_classes < 2:
        raise ValueError(
            f"The training set has {len(splits.train)} images of {splits.train.num_classes} classes; "
            "at least 2 classes are needed to learn to tell them apart."
        )
    return Data(config, splits, place)


@dataclasses.dataclass(frozen=True)
class Embedder:
    """An untrained embedder for data.

    Attributes:
        data: What it is trained on; where the configuration says `features`, its splits hold features.
        whole: Images → unit vectors.
        trained: The part that is trained: `whole`, or with `features` the head alone.
    """

    data: Data
    whole: keras.Model
    trained: keras.Model


def build_embedder(data: Data) -> Embedder:
    """Build the backbone and the head; with `features`, compute what the backbone makes of every image.

    Raises:
        ValueError: If backbone or head do not exist, or the loss cannot compare what a batch holds.
    """
    assembly.check_batches(data.config, data.splits.train)
    keras.utils.set_random_seed(data.config.seed)
    with data.place.strategy.scope():
        if data.holds_features:
            head = assembly.build_head(data.config, data.splits.train.dim)
            return Embedder(data, head, head)
        whole = assembly.build_embedder(data.config, data.splits.train.image_size)
        if not data.config.features:
            return Embedder(data, whole, whole)
        return Embedder(with_features(data, whole), whole, assembly.head_on_features(whole))


def with_features(data: Data, embedder: keras.Model) -> Data:
    """Replace the images of data by the features that an embedder's backbone makes of them, which are kept on disk."""
    from tf_detreg.datasets.feature_cache import cache_features

    if data.holds_features:
        return data
    # The backbone itself: what `split_embedder` makes is named anew each time, and the cache goes by names too.
    return dataclasses.replace(data, splits=cache_features(embedder.layers[0], data.splits))


@dataclasses.dataclass(frozen=True)
class Assembled:
    """Everything that a training needs.

    Attributes:
        data: See `Embedder`.
        embedder: Images → unit vectors; it shares its layers with `model`.
        model: Compiled, its optimizer built.
        callbacks: Those that the configuration names.
        batches: Makes the training batches, from `first_epoch` on.
        steps: Batches in an epoch.
    """

    data: Data
    embedder: keras.Model
    model: MetricModel
    callbacks: list[keras.callbacks.Callback]
    batches: Callable[..., tf.data.Dataset]
    steps: int

    def fit(
        self,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
        first_epoch: int = 0,
    ) -> keras.callbacks.History:
        """Train for the configuration's epochs; nothing is written.

        Args:
            callbacks: After those that the configuration names. Default: none.
            verbose: Of `keras.Model.fit`. Default `"auto"`.
            first_epoch: Number of epochs that are done. Default 0.

        Returns:
            What each epoch logged.
        """
        config, place = self.data.config, self.data.place
        with settings(config):
            return self.model.fit(
                place.distribute(self.batches(first_epoch=first_epoch), config.prefetch_to_device),
                epochs=config.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=self.steps if place.strategy.num_replicas_in_sync > 1 else None,
                shuffle=False,
                callbacks=[*self.callbacks, *callbacks],
                verbose=verbose,
            )


def build_model(embedder: Embedder) -> Assembled:
    """Build loss, second head, regularizers, optimizer and batches around an embedder.

    Raises:
        ValueError: If one of them does not exist or does not take its arguments.
    """
    data = embedder.data
    config, train = data.config, data.splits.train
    with data.place.strategy.scope():
        options = {} if data.holds_features else assembly.image_options(config)
        batches = functools.partial(train.batches, config.classes, config.images, seed=config.seed, **options)
        steps = int(batches().cardinality())
        model = assembly.build_model(config, train, embedder.trained, steps)
        model.optimizer.build(model.trainable_variables)
    averaging.Averaging.of(config)
    callbacks: list[keras.callbacks.Callback] = []
    if config.unfreezing is not None:
        callbacks.append(
            assembly.called("unfreezing", "callbacks.GradualUnfreezing", GradualUnfreezing, **config.unfreezing)
        )
    if config.health:
        callbacks.append(Health.of(train, seed=config.seed))
    return Assembled(data, embedder.whole, model, callbacks, batches, steps)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A training that has ended; `best.keras` is written, and with `averaging` `averaged.keras`.

    Attributes:
        data: See `Embedder`.
        directory: Of the run.
        diverged: Why training stopped, if the objective became NaN or infinite.
    """

    data: Data
    directory: pathlib.Path
    diverged: str | None


def fit(
    assembled: Assembled,
    directory: pathlib.Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> Fitted:
    """Train from the last checkpoint of the run, if there is one, to the end.

    Raises:
        OSError: If the directory cannot be written to.
    """
    model, data = assembled.model, assembled.data
    config, place = data.config, data.place
    _check_monitor(config, data.splits.validation)
    averages = averaging.check(config, data.splits.validation)
    # What training begins with, also of a run that is resumed.
    pretrained = averaging.plain_weights(assembled) if averages is not None else []
    saved = checkpoint.checkpoints(directory / CHECKPOINTS)
    notes = checkpoint.restore(model, saved[-1]) if saved else FIRST_NOTES
    guard = NaNGuard()
    embedder = assembled.embedder if config.features else model.embedder
    keeper = Keeper(directory, config, embedder, data.splits.validation, notes, place.chief, averaging.keep(config))
    if not keeper.patience_is_over():
        assembled.fit([guard, keeper, *callbacks], verbose, notes["epoch"])
    if place.chief and not (directory / BEST).is_file():
        with naming_the_last_checkpoint(directory):
            keeper.save_embedder()
    if place.chief and averages is not None and guard.reason is None:
        with naming_the_last_checkpoint(directory):
            averaging.choose(assembled, averages, directory, pretrained)
    return Fitted(data, directory, guard.reason)


def _check_monitor(config: RunConfig, validation: Any) -> None:
    """Refuse a rank that the validation images are too few for: no epoch would ever be the best by it.

    Raises:
        ValueError: If there is none.
    """
    rank = config.monitor.partition("@")[2]
    if rank != "r" and has_pairs(validation) and int(rank) > len(validation) - 1:
        raise checks.invalid(
            "monitor",
            f"be at a rank up to {len(validation) - 1}, since a validation image is searched among the others",
            f"{config.monitor!r} with {len(validation)} validation images",
        )


def write_config(data: Data, directory: pathlib.Path) -> None:
    """Write what makes a directory the directory of this run."""
    if data.place.chief and not (directory / CONFIG).is_file():
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        write_json(directory / CONFIG, {**data.record, "versions": versions})


def evaluate(data: Data, embedder: keras.Model, directory: pathlib.Path) -> None:
    """Write the evaluation of an embedder on validation and test classes.

    Args:
        data: With `features`, its splits hold features.
        embedder: Images → unit vectors.
        directory: Of the run.
    """
    embedder = assembly.head_on_features(embedder) if data.config.features else embedder
    reports = {}
    for name in ("validation", "test"):
        part = getattr(data.splits, name)
        # Some data sets come with a gallery that the test images are searched in.
        gallery = getattr(data.splits, "gallery", None) if name == "test" else None
        if has_pairs(part) or (gallery is not None and len(part)):
            reports[name] = final_evaluation(embedder, part, data.config.k, data.splits.train.class_names, gallery)
    write_json(directory / EVALUATION, reports)


def finish(fitted: Fitted) -> None:
    """Write the evaluation of the best epoch or average, and the result last: it says that the run is finished.

    Raises:
        TrainingDiverged: If the training did; the result is written all the same.
    """
    from tf_detreg.models import load

    if not fitted.data.place.chief:
        return
    with naming_the_last_checkpoint(fitted.directory):
        averages = fitted.data.config.averaging is not None and fitted.diverged is None
        best = fitted.directory / (AVERAGED if averages else BEST)
        evaluate(fitted.data, load(best), fitted.directory)
        with replacing(fitted.directory / EMBEDDER) as temporary:
            shutil.copyfile(best, temporary)
    if fitted.diverged:
        raise TrainingDiverged(fitted.diverged)

"""Averages of weights after training: of the last epochs, and with the pretrained backbone."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_detreg import checks
from tf_detreg.backbones import merge_lora
from tf_detreg.files import replacing, write_json
from tf_detreg.training import assembly, checkpoint
from tf_detreg.training.config import RunConfig
from tf_detreg.training.parts import split_embedder
from tf_detreg.training.retrieval_evaluation import has_pairs, retrieve
from tf_detreg.training.run_directory import AVERAGED, AVERAGING, BEST, CHECKPOINTS

if TYPE_CHECKING:
    from tf_detreg.datasets import ImageSet
    from tf_detreg.training.stages import Assembled

Weights = list[Any]


@dataclasses.dataclass(frozen=True)
class Averaging:
    """What a run averages at its end; the table `averaging` of a configuration.

    Args:
        last: n of the uniform average of the weights after each of the last n epochs (a "soup"). Default 0: none.
        shares: Of the fine-tuned weights in mixtures with the pretrained ones, `share·tuned + (1 − share)·pretrained`,
            of the backbone; the head stays as it was trained. Default: none.

    Raises:
        ValueError: If a value is out of range, or nothing is asked for.

    Reference:
        Wortsman et al., "Model soups", ICML 2022, and "Robust fine-tuning of zero-shot models", CVPR 2022; Izmailov et
        al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
    """

    last: int = 0
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if checks.integer("last", self.last) == 1:
            raise checks.invalid("last", "be 0, or 2 or more epochs", "1")
        if not isinstance(self.shares, list | tuple):
            raise checks.invalid("shares", "be a list of numbers from 0 to below 1", checks.shown(self.shares))
        for share in self.shares:
            checks.within("shares", share, 0, 1, "[)")
        if not (self.last or self.shares):
            raise checks.invalid("averaging", "say `last`, `shares` or both", "neither")

    @classmethod
    def of(cls, config: RunConfig) -> "Averaging | None":
        """Return what a configuration asks for, or None.

        Raises:
            ValueError: If it cannot be met.
        """
        if config.averaging is None:
            return None
        made = assembly.called("averaging", "training.averaging.Averaging", cls, **config.averaging)
        if made.shares and (config.features or config.backbone["name"] == "small_cnn"):
            received = (
                "features=true, which leaves it as it is" if config.features else "small_cnn, which has no such weights"
            )
            raise checks.invalid("shares", "go with a backbone of pretrained weights that is tuned", received)
        return made


def uniform(several: Sequence[Weights]) -> Weights:
    """Return the mean of several lists of weights, array by array.

    Example:
        >>> uniform([[np.array([1.0, 2.0])], [np.array([3.0, 6.0])]])
        [array([2., 4.])]
    """
    return [np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype) for arrays in zip(*several, strict=True)]


def mixed(tuned: Weights, pretrained: Weights, share: float) -> Weights:
    """Return `share·tuned + (1 − share)·pretrained`, array by array.

    Example:
        >>> mixed([np.array([1.0])], [np.array([0.0])], 0.75)
        [array([0.75])]
    """
    return [
        (share * a.astype(np.float64) + (1 - share) * b.astype(np.float64)).astype(a.dtype)
        for a, b in zip(tuned, pretrained, strict=True)
    ]


class WeightAveraging(keras.callbacks.Callback):
    """Leaves a model with averaged weights at the end of `fit`, in memory and without choosing.

    A run chooses among several averages on its validation classes instead: `averaging` of `training.RunConfig`.

    Args:
        last: n of the uniform average of the weights after each of the last n epochs. Default 0: the last epoch alone.
        share: Of the fine-tuned weights in the mixture with those that `backbone` had when training began. Default 1.
        backbone: What is mixed. Default: the model's `backbone`, as `MetricModel` has one.

    Example:
        >>> soup = WeightAveraging(last=3)
        >>> soup.last, soup.share
        (3, 1.0)
    """

    def __init__(self, last: int = 0, share: float = 1.0, backbone: keras.Model | None = None) -> None:
        super().__init__()
        Averaging(last, () if share == 1 else (share,))  # which checks them
        self.last, self.share, self.backbone = last, float(share), backbone
        self._epochs: collections.deque[Weights] = collections.deque(maxlen=max(last, 1))
        self._pretrained: Weights | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.share == 1 or self._pretrained is not None:
            return
        backbone = getattr(self.model, "backbone", None) if self.backbone is None else self.backbone
        if backbone is None:
            raise checks.invalid("backbone", "be given for a model that has no attribute of this name", "None")
        self._pretrained = backbone.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.last:
            self._epochs.append(self.model.get_weights())

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._epochs:
            self.model.set_weights(uniform(self._epochs))
        if self._pretrained is not None:
            backbone = self.model.backbone if self.backbone is None else self.backbone
            backbone.set_weights(mixed(backbone.get_weights(), self._pretrained, self.share))


def check(config: RunConfig, validation: "ImageSet") -> Averaging | None:
    """Return what a run is to average, if anything.

    Raises:
        ValueError: If it cannot be met, or there are no validation classes to choose by.
    """
    made = Averaging.of(config)
    if made is not None and not has_pairs(validation):
        raise checks.invalid("averaging", "be chosen on validation classes", "data that have none with two images")
    return made


def keep(config: RunConfig) -> int:
    """Return how many checkpoints a run keeps: two, or those that its average is made of."""
    made = Averaging.of(config)
    return max(2, made.last) if made else 2


def plain_weights(assembled: "Assembled") -> Weights:
    """Return the weights of a run's embedder as it is now, low-rank factors merged."""
    weights: Weights = merge_lora(_embedder(assembled)).get_weights()
    return weights


def choose(assembled: "Assembled", averaging: Averaging, directory: pathlib.Path, pretrained: Weights) -> None:
    """Measure a run's averages on its validation classes, and write the best, or the best epoch if none is better.

    Args:
        assembled: After training; its weights are changed.
        averaging: What is tried.
        directory: Of the run; `averaged.keras` and `averaging.json` are written.
        pretrained: Weights of the embedder before training, from `plain_weights`.
    """
    from tf_detreg.models import load

    config = assembled.data.config
    embedder = load(directory / BEST)
    tuned = {"best epoch": embedder.get_weights()}
    if averaging.last:
        epochs = []
        for path in checkpoint.checkpoints(directory / CHECKPOINTS)[-averaging.last :]:
            checkpoint.restore(assembled.model, path)
            epochs.append(plain_weights(assembled))
        tuned[f"mean of the last {len(epochs)} epochs"] = uniform(epochs)
    backbone = {id(weight) for weight in split_embedder(embedder)[0].weights}
    belongs = [id(weight) in backbone for weight in embedder.weights]

    def with_share(weights: Weights, share: float) -> Weights:
        together = zip(weights, mixed(weights, pretrained, share), belongs, strict=True)
        return [mixture if inside else own for own, mixture, inside in together]

    candidates = dict(tuned)
    for share in averaging.shares:
        candidates |= {f"{name}, {share:g} of it": with_share(weights, share) for name, weights in tuned.items()}
    measured = assembly.head_on_features(embedder) if config.features else embedder
    values = {}
    for name, weights in candidates.items():
        embedder.set_weights(weights)
        report = retrieve(measured, assembled.data.splits.validation, config.k)
        rank = config.monitor.partition("@")[2]
        values[name] = report.map_at_r if rank == "r" else report.recall[int(rank)]
    # Of equal ones the first: the best epoch before any average.
    chosen = max(values, key=values.__getitem__)
    embedder.set_weights(candidates[chosen])
    with replacing(directory / AVERAGED) as temporary:
        embedder.save(temporary)
    write_json(directory / AVERAGING, {"monitor": config.monitor, "chosen": chosen, "candidates": values})


def _embedder(assembled: "Assembled") -> keras.Model:
    """Return what a run saves: images → unit vectors, also where the head alone is trained."""
    return assembled.embedder if assembled.data.config.features else assembled.model.embedder

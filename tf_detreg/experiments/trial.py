"""One trial: a run without a directory on the classes of one split, measured on classes that it did not see."""

import os
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_detreg import _compat, retrieval, training
from tf_detreg.datasets import Splits
from tf_detreg.experiments import data
from tf_detreg.inference import any_batch
from tf_detreg.retrieval import inputs
from tf_detreg.training.averaging import Averaging, WeightAveraging
from tf_detreg.training.health import Health
from tf_detreg.training.parts import split_embedder

HEALTH = ("mean_cosine", "effective_rank", "within_between_ratio", "active_triplets")


@_compat.forgetting_gradients()
def run(
    config: training.RunConfig,
    protocol: Mapping[str, Any],
    split: int,
    stage: str,
    directory: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """Train a configuration on one split of the classes and measure it.

    Args:
        config: What to train, with the trial's seed.
        protocol: Of the study; `smoothness` asks for the Lipschitz numbers.
        split: Number of the deal of classes.
        stage: `"validation"` or `"test"`.
        directory: Where the trial is a run directory, from which a killed trial goes on. Default: none is kept.

    Returns:
        Metrics by name: `recall@k` and `map@r` in percent; `cross_recall@1` where there are groups; `train_recall@1`;
        `seconds` of training, `parameters` of the embedder, `peak_memory_mb` of the process, final `metric_loss` and
        `determinant`; with `smoothness` the numbers of `smoothness`, with the configuration's `health` its last
        measures and, without a run directory, the number of epochs with a warning, and the first and last of them.

    Raises:
        ValueError: If the configuration cannot be met, or training diverged.
    """
    train, unseen, gallery = data.parts(config, protocol, split, stage)
    keras.backend.clear_session()
    # Validation classes are not shown to a trial: its last epoch counts, whatever they would say of earlier ones.
    splits = Splits(train, unseen.subset([]), unseen)
    embedder, last, warned, seconds = (_kept if directory else _passing)(config, splits, directory)
    found: dict[str, float] = {name: float(last[name]) for name in ("metric_loss", "determinant") if name in last}
    found |= {"seconds": seconds, "parameters": int(embedder.count_params())}
    found |= {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    found |= measure(embedder, train, unseen, config.k, gallery)
    if protocol["smoothness"]:
        found |= smoothness(embedder, train, unseen, config.seed)
    if config.health:
        found |= {f"health_{name}": float(last[f"health_{name}"]) for name in HEALTH}
    if config.health and warned is not None:
        found |= {"health_warnings": len(warned)}
        found |= {"health_first_warning": warned[0], "health_last_warning": warned[-1]} if warned else {}
    return found


def _passing(
    config: training.RunConfig, splits: Splits, _: object
) -> tuple[keras.Model, dict[str, Any], list[int], float]:
    """Train in memory; return the embedder, the last log, the epochs with a warning, and the seconds of `fit`."""
    parts = training.assemble(config, splits)
    start = time.perf_counter()
    history = parts.fit(_averages(config), verbose=0).history
    seconds = time.perf_counter() - start
    last = {name: values[-1] for name, values in history.items()}
    if not np.isfinite(last["loss"]):
        raise ValueError(f"training diverged: loss {last['loss']} with {config.to_dict()}.")
    warned = [epoch for each in parts.callbacks if isinstance(each, Health) for epoch in each.warned]
    return parts.model.embedder, last, warned, seconds


def _averages(config: training.RunConfig) -> list[keras.callbacks.Callback]:
    """Return what averages the weights as the configuration says, which has to leave nothing to choose."""
    made = Averaging.of(config)
    if made is None:
        return []
    if len(made.shares) > 1:
        raise ValueError(
            f"a trial takes one of the `shares` of averaging; received {made.shares!r}. Put them in a grid."
        )
    return [WeightAveraging(made.last, made.shares[0] if made.shares else 1.0)]


def _kept(
    config: training.RunConfig, splits: Splits, directory: Any
) -> tuple[keras.Model, dict[str, Any], None, float]:
    """Train in a run directory, going on with what is there.

    The seconds are those of this process alone. In which epochs an earlier process warned, nobody wrote down: None.
    """
    start = time.perf_counter()
    finished = training.train(config, directory, resume=True, splits=splits, verbose=0)
    return finished.embedder, finished.history[-1], None, time.perf_counter() - start


def measure(
    embedder: keras.Model, train: Any, unseen: Any, ranks: Sequence[int], gallery: Any = None
) -> dict[str, Any]:
    """Return retrieval numbers in percent on the unseen classes, and R@1 on the train classes."""
    found = training.embed(embedder, unseen, batch_size=512)
    there: dict[str, Any] = {}
    size = len(found.labels) - 1
    if gallery is not None:
        items = training.embed(embedder, gallery, batch_size=512)
        there, size = {"gallery": items.embeddings, "gallery_labels": items.labels}, len(items.labels)
    ranks = inputs.ranks_within(ranks, size)
    options: dict[str, Any] = {"engine": "exact", "progress": False}
    plain = retrieval.evaluate(found.embeddings, found.labels, **there, k=ranks, **options)
    result = {f"recall@{k}": 100.0 * plain.recall[k] for k in ranks} | {"map@r": 100.0 * plain.map_at_r}
    if found.groups is not None and gallery is None and _spans_groups(found.labels, found.groups):
        crossed = retrieval.evaluate(found.embeddings, found.labels, groups=found.groups, k=(1,), **options)
        result["cross_recall@1"] = 100.0 * crossed.recall[1]
    seen = training.embed(embedder, train, batch_size=512)
    recall = retrieval.evaluate(seen.embeddings, seen.labels, k=(1,), **options).recall
    return result | {"train_recall@1": 100.0 * recall[1]}


def _spans_groups(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Return whether any class has images in two groups, without which there is nothing to find across groups."""
    return len(np.unique(np.stack([labels, groups]), axis=1).T) > len(np.unique(labels))


def smoothness(embedder: keras.Model, train: Any, unseen: Any, seed: int, count: int = 256) -> dict[str, float]:
    """Return how steep the head's flow `g` is, at its inputs `z` of unseen classes.

    Means of what `analysis.lipschitz` measures: `spectral`, the largest singular value of g's Jacobian; `frobenius`,
    `‖J‖_F / √d` (1 for an isometry); `log_det`, `log|det J| / d`; `secant_*`, `‖g(a) − g(b)‖ / ‖a − b‖` for pairs
    within a class and between classes, of seen and of unseen classes. And `abs_log_scale`, the mean of |s| over all
    triangular factors.
    """
    from tf_detreg.analysis import lipschitz

    backbone, head = split_embedder(embedder)
    rng = np.random.default_rng(seed)
    # Numbers of rows differ from call to call.
    flow = any_batch(lambda z: head.flow(z, training=False)[0])
    project = any_batch(lambda x: head.project(backbone(x, training=False), training=False))

    def sample(images: Any) -> tuple[list[tf.Tensor], np.ndarray, np.ndarray]:
        labels = images.labels
        rows = np.sort(rng.choice(len(labels), min(count, len(labels)), replace=False))
        positives = np.array([rng.choice(_positives(labels, row)) for row in rows])
        others = rng.permutation(rows)
        points = [
            tf.concat([project(x) for x, _ in images.subset(i).ordered(count)], 0) for i in (rows, positives, others)
        ]
        return points, rows != positives, labels[rows] != labels[others]

    result = {}
    for name, images in (("seen", train), ("unseen", unseen)):
        (a, b, c), has_positive, differs = sample(images)
        for kind, partners, chosen in (("within", b, has_positive), ("between", c, differs)):
            ratios = lipschitz.secant_ratios(flow, a[chosen], partners[chosen])
            result[f"secant_{kind}_{name}"] = float(np.mean(ratios)) if len(ratios) else float("nan")
    scales = [tf.reduce_mean(tf.abs(s)) for s in head.flow(a, training=False)[1]]
    log_det = lipschitz.log_determinant(head, a)
    return result | {
        "abs_log_scale": float(tf.reduce_mean(scales)) if scales else 0.0,
        "log_det": 0.0 if log_det is None else float(np.mean(log_det)) / head.dim,
        "spectral": float(np.mean(lipschitz.spectral_norm(flow, a, iterations=13))),
        "frobenius": float(np.mean(lipschitz.frobenius_norm(flow, a, probes=8))) / head.dim**0.5,
    }


def _positives(labels: np.ndarray, row: int) -> np.ndarray:
    """Return the rows of the same class, without the row itself where there are others."""
    rows = np.flatnonzero(labels == labels[row])
    return rows[rows != row] if len(rows) > 1 else rows

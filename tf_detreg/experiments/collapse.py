"""Whether a trial's embeddings collapsed: the numbers that `callbacks.Health` logs, and how often it warned."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_detreg.experiments.data import Arrays

MEASURES = ("mean_cosine", "effective_rank", "within_between_ratio", "active_triplets")


def watch(train: Arrays, seed: int, size: int = 512):
    """A callback that watches some whole classes of the training data.

    Args:
        train: the data.
        seed: of the choice of classes.
        size: number of rows, about. Default 512.
    """
    from tf_detreg.training.health import Health

    order = np.random.default_rng(seed).permutation(train.num_classes)
    rows = np.sort(np.argsort(np.argsort(order)[train.labels], kind="stable")[:size])
    return Health(train.inputs[rows].astype("float32"), train.labels[rows])


def summary(watched, history: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The last epoch's measures, and when the callback warned.

    Args:
        watched: the callback, from `watch`.
        history: entries `health_*` by epoch, of the `fit` that it watched.

    Returns:
        `health_NAME` for each of `MEASURES`; `health_warnings`, the number of epochs with a warning; and, where there
        is one, `health_first_warning` and `health_last_warning`, the first and last such epoch, counted from 1.
    """
    last = {f"health_{name}": float(history[f"health_{name}"][-1]) for name in MEASURES}
    epochs = watched.warned
    when = {"health_first_warning": epochs[0], "health_last_warning": epochs[-1]} if epochs else {}
    return last | {"health_warnings": len(epochs)} | when

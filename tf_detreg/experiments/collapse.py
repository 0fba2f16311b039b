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


def summary(history: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The last epoch's measures, and when the callback warned, from the history of a `fit` that it watched.

    Args:
        history: entries `health_*` by epoch.

    Returns:
        `health_NAME` for each of `MEASURES`; `health_warnings`, the number of epochs with a warning; and, where there
        is one, `health_first_warning` and `health_last_warning`, the first and last such epoch, counted from 1.

    Example:

    >>> healthy = {"mean_cosine": 0.1, "effective_rank": 9.0, "within_between_ratio": 0.5, "active_triplets": 0.2}
    >>> log = {f"health_{name}": [value, value] for name, value in healthy.items()}
    >>> summary(log | {"health_mean_cosine": [0.1, 0.99]})["health_first_warning"]
    2
    """
    from tf_detreg.training.health import advice

    epochs = zip(*(history[f"health_{name}"] for name in MEASURES), strict=True)
    warned = [number for number, found in enumerate(epochs, 1) if advice(dict(zip(MEASURES, found, strict=True)))]
    last = {f"health_{name}": float(history[f"health_{name}"][-1]) for name in MEASURES}
    when = {"health_first_warning": warned[0], "health_last_warning": warned[-1]} if warned else {}
    return last | {"health_warnings": len(warned)} | when

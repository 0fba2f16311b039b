"""The contract of regularizers: a scalar penalty from what a training step has at hand."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_detreg import checks


def _snake_case(name: str) -> str:
    """Turn `LogExpMean` into `log_exp_mean`, as Keras names layers."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def some_rows(count: tf.Tensor, most: int, draws: keras.random.SeedGenerator) -> tf.Tensor:
    """Return the row numbers `0 .. count - 1`, or `most` of them at random where there are more.

    Drawn from a generator of the layer's own, whose state a checkpoint keeps: TensorFlow's would begin anew.
    """
    rows = tf.range(count)
    return tf.cond(tf.size(rows) > most, lambda: keras.random.shuffle(rows, seed=draws)[:most], lambda: rows)


@dataclasses.dataclass(frozen=True)
class Context:
    """What one training step knows; anything may be `None`.

    Take its parts with `need`: under a distribution strategy images, features and z are first gathered there, from all
    replicas, because they are large and few regularizers look at them. All else is that of the global batch already.

    Attributes:
        labels: Integers `(B,)`.
        images: The batch, `(B, H, W, 3)`.
        features: Output of the backbone, `(B, F)`.
        z: Input of the flow, `(B, dim)`.
        embeddings: Unit vectors, `(B, dim)`.
        proxies: Weights of a proxy loss, `(P, dim)`, not normalized.
        proxy_labels: Class of each proxy, `(P,)`.
        head: The head, a `heads.Head`.
        backbone: The model from images to features.
        gather: From rows of this replica to those of all. Default None: they are all.
    """

    labels: Any = None
    images: Any = None
    features: Any = None
    z: Any = None
    embeddings: Any = None
    proxies: Any = None
    proxy_labels: Any = None
    head: Any = None
    backbone: Any = None
    gather: Callable[[Any], Any] | None = None

    def need(self, *names: str, by: str) -> list[Any]:
        """Return the named parts, or raise an error that says who misses what."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            hint = " Train with a proxy loss (e.g. losses.ProxyAnchor)." if "proxies" in missing else ""
            raise ValueError(f"{by} needs {', '.join(missing)}, which this training step does not provide.{hint}")
        return [self._whole(name) for name in names]

    def _whole(self, name: str) -> tf.Tensor:
        part = getattr(self, name)
        return self.gather(part) if self.gather is not None and name in ("images", "features", "z") else part


class Regularizer(keras.layers.Layer):
    """Base of all regularizers: the objective grows by `weight · penalty(context)`.

    `penalty` returns the bare, unweighted scalar, so that logs of runs with different weights compare; whoever trains
    multiplies by `weight`. Computation is in float32, also under mixed precision.

    Implementing a regularizer: subclass, write `penalty(context)`, fetch what it uses with `context.need(...)`, and
    extend `get_config`. Own weights are created in `__init__` or in `build`, never inside `penalty`.

    Args:
        weight: Factor of the penalty in the objective. Default 1.0.
        name: What logs call the penalty. Default: the class's name, such as `log_exp_mean`.
        dtype, trainable: As in `keras.layers.Layer`. Computation is in float32, or float64 if asked.

    Attributes:
        steep: Of the class: whether a single sample can make the gradient so large that a run should clip it, which it
            then does unless told not to. Default false.
    """

    steep: ClassVar[bool] = False

    def __init__(
        self, weight: float = 1.0, *, name: str | None = None, dtype: Any = "float32", trainable: bool = True
    ) -> None:
        # Keras would number the objects of a process: `uniformity_7` in the log of a seventh model.
        super().__init__(name=name or _snake_case(type(self).__name__), dtype=dtype, trainable=trainable)
        self.weight = checks.number("weight", weight)

    def penalty(self, context: Context) -> tf.Tensor:
        """Return the unweighted scalar."""
        raise NotImplementedError(f"{type(self).__name__} must implement penalty(context).")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": self.weight}

"""How a learning rate rises and falls over a run."""

import math
from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks

DECAYS = ("none", "linear", "cosine", "step")


@keras.saving.register_keras_serializable("tf_detreg")
class WarmUpDecay(keras.optimizers.schedules.LearningRateSchedule):
    r"""`rate · rise(t) · fall(t)`: nothing for `delay` steps, then a linear rise, then a decay to the end.

    `fall` is `1 − u` (linear), `(1 + cos πu)/2` (cosine), `factor^⌊(t − start)/every⌋` (step) or 1 (none), where `u`
    runs from 0 at the end of the rise to 1 at `steps`.

    Args:
        rate: The highest rate.
        steps: Optimizer steps of the whole run. Only `"none"` does without.
        warmup: Steps of the rise. Default 0.
        decay: `"none"`, `"linear"` (default), `"cosine"` or `"step"`.
        delay: Steps at rate 0 before the rise: with it on the backbone alone, head and proxies settle first. Default 0.
        every: Steps between two falls of `"step"`.
        factor: What `"step"` multiplies by. Default 0.5.
        name: Of the schedule. Default `"warm_up_decay"`.

    Raises:
        ValueError: For arguments out of range, or that a decay lacks.

    Example:
        >>> schedule = WarmUpDecay(1.0, steps=10, warmup=2)
        >>> [round(float(schedule(t)), 2) for t in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.12]
    """

    def __init__(
        self,
        rate: float,
        steps: int | None = None,
        warmup: int = 0,
        decay: str = "linear",
        delay: int = 0,
        every: int | None = None,
        factor: float = 0.5,
        name: str = "warm_up_decay",
    ) -> None:
        super().__init__()
        checks.not_negative("rate", rate)
        checks.choice("decay", decay, DECAYS)
        checks.not_negative("warmup", warmup)
        checks.not_negative("delay", delay)
        if decay in ("linear", "cosine") and (steps is None or steps <= warmup + delay):
            raise checks.invalid(
                "steps", f"be above warmup + delay = {warmup + delay} for decay={decay!r}", checks.shown(steps)
            )
        if decay == "step":
            checks.positive("every", every)  # steps from one fall to the next
        self.rate, self.steps, self.warmup, self.decay = float(rate), steps, int(warmup), decay
        self.delay, self.every, self.factor, self.name = int(delay), every, float(factor), name

    def __call__(self, step: Any) -> tf.Tensor:
        t = tf.cast(step, tf.float32) - self.delay
        rise = tf.minimum(1.0, (t + 1.0) / max(self.warmup, 1))
        past = tf.maximum(t - self.warmup, 0.0)
        return self.rate * tf.where(t < 0, 0.0, rise * self._fall(past))

    def _fall(self, past: tf.Tensor) -> tf.Tensor:
        if self.decay == "none":
            return tf.ones_like(past)
        if self.decay == "step":
            return self.factor ** tf.floor(past / self.every)
        u = tf.minimum(past / ((self.steps or 0) - self.warmup - self.delay), 1.0)
        return 1.0 - u if self.decay == "linear" else 0.5 * (1.0 + tf.cos(math.pi * u))

    def get_config(self) -> dict[str, Any]:
        names = ("rate", "steps", "warmup", "decay", "delay", "every", "factor", "name")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("tf_detreg")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """`factor · schedule(step)`: the schedule of a block that learns more slowly than those above it.

    Args:
        schedule: Any `keras.optimizers.schedules.LearningRateSchedule`.
        factor: What its rates are multiplied by.

    Example:
        >>> schedule = ScaledSchedule(WarmUpDecay(1.0, steps=10), 0.5)
        >>> [round(float(schedule(t)), 2) for t in (0, 5)]
        [0.5, 0.25]
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, factor: float) -> None:
        super().__init__()
        self.schedule, self.factor = schedule, float(factor)

    def __call__(self, step: Any) -> tf.Tensor:
        return self.factor * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.optimizers.schedules.deserialize(schedule)
        return cls(schedule, config["factor"])

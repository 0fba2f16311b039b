"""One optimizer, three groups of weights: backbone, heads and proxies, each with a learning rate."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg._compat import moving_averages, optimized, optimizer_for
from tf_detreg.replicas import replica_count
from tf_detreg.training.groups import GroupMap
from tf_detreg.training.schedules import WarmUpDecay

SCHEDULED = (
    "The learning rates of this optimizer follow a schedule, as steps=, warmup= or backbone_delay= say, so no callback "
    "can set them. Leave ReduceLROnPlateau and LearningRateScheduler out, or make training.optimizer without these "
    "arguments."
)
NOTHING_TRAINS = (
    "Nothing is left to train: every weight is frozen. Thaw a head or a part of the backbone, then compile."
)
METHODS = ("AdamW", "Adam", "SGD", "RMSprop", "Lion")


@keras.saving.register_keras_serializable("tf_detreg")
class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """A `keras.optimizers.MultiOptimizer` with groups of layers: backbone, head and proxies. Made by `optimizer`.

    Under a distribution strategy gradients are clipped after they have been summed over the replicas, so that a clipped
    run, too, equals one process; Keras' own optimizers clip each replica's part.

    Args:
        optimizer_map: A `GroupMap`, or a `keras.optimizers.OptimizerMap` with an optimizer for each group, named like
            it.
        group_clipnorm: Each group's gradient is scaled down to this norm. Default: never.
        loss_scale_factor: Of `MultiOptimizer`.
        name: Of the optimizer.
        layer_decay: Factor of the backbone's rate from one block to the one below it. Default 1.
    """

    def __init__(
        self,
        optimizer_map: Any,
        group_clipnorm: float | None = None,
        loss_scale_factor: float | None = None,
        name: str | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__(GroupMap.of(optimizer_map), loss_scale_factor=loss_scale_factor, name=name)
        self.group_clipnorm = None if group_clipnorm is None else checks.positive("clipnorm", group_clipnorm)
        self.layer_decay = float(checks.within("layer_decay", layer_decay, 0, 1, "(]"))

    def group_of(self, variable: keras.Variable) -> str:
        """Return `"backbone"`, `"head"` or `"proxies"`."""
        groups: Any = optimizer_for(self)
        result: str = groups.group(groups(variable)).name
        return result

    def rate_of(self, variable: keras.Variable) -> float:
        """Return the learning rate of a weight's next step."""
        return float(keras.ops.convert_to_numpy(optimizer_for(self)(variable).learning_rate))

    @property
    def learning_rate(self) -> Any:
        """Return the rate of the first group, the heads. Setting it changes the rates of all groups by the same factor.

        Keras' callbacks set it where half precision wraps this optimizer, and the groups themselves elsewhere.
        """
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self.has_schedule:
            raise ValueError(SCHEDULED)
        now = float(keras.ops.convert_to_numpy(self.learning_rate))
        for inner in self.optimizers:
            inner.learning_rate = (
                float(keras.ops.convert_to_numpy(inner.learning_rate)) * (value / now) if now else value
            )

    @property
    def has_schedule(self) -> bool:
        """Return whether the rate of any group follows a schedule of its own."""
        schedule = keras.optimizers.schedules.LearningRateSchedule
        return any(isinstance(inner.get_config()["learning_rate"], dict | schedule) for inner in self.optimizers)

    def take_parts(self, model: Any) -> None:
        """Take the groups from the parts of a `MetricModel`."""
        groups: Any = optimizer_for(self)
        groups.take_parts(model)

    def build(self, var_list: list[keras.Variable]) -> None:
        if self.built:
            return
        if not var_list:
            raise ValueError(NOTHING_TRAINS)
        groups: Any = optimizer_for(self)
        groups.look_up(var_list)
        if self.layer_decay != 1:
            groups.split_blocks(var_list, self.layer_decay)
        super().build(var_list)
        for variable, average in _averages(self):
            # Keras starts at zero, which a group that rests at first would keep.
            average.assign(variable)

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Put the averages in place. All of them: the variables that train by now may be fewer than were built."""
        for variable, average in _averages(self):
            variable.assign(average)

    def apply(self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None) -> None:
        """Apply as Keras does, but also to a part of the variables: a backbone frozen for now may be missing."""
        if not self.built:
            self.build(trainable_variables or [])
        groups: Any = optimizer_for(self)
        pairs = [
            (groups(variable), gradient, variable)
            for gradient, variable in zip(grads, trainable_variables or optimized(self), strict=True)
        ]
        # The norm is a group's, also where the blocks of the backbone have optimizers of their own.
        clipped: dict[int, Iterator[Any]] = {}
        for group in {id(group): group for group in map(groups.group, self.optimizers)}.values():
            whole = [gradient for inner, gradient, _ in pairs if groups.group(inner) is group]
            clipped[id(group)] = iter(self._clipped(whole) if any(each is not None for each in whole) else whole)
        parts: dict[int, tuple[Any, list[tf.Tensor], list[keras.Variable]]]
        parts = {id(inner): (inner, [], []) for inner in self.optimizers}
        for inner, _, variable in pairs:
            _, gradients, variables = parts[id(inner)]
            gradients.append(next(clipped[id(groups.group(inner))]))
            variables.append(variable)
        for inner, gradients, variables in parts.values():
            if any(gradient is not None for gradient in gradients):
                inner.apply(gradients, variables)
            else:
                # A resting group's schedule goes on.
                inner.iterations.assign_add(1)
        self.iterations.assign_add(1)

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        if self.group_clipnorm is None:
            return gradients
        present = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        replicas = replica_count()
        if replicas > 1:
            present = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, present)
        norm = self.group_clipnorm * (self.loss_scale_factor or 1.0)
        # The inner optimizer sums over the replicas once more.
        clipped = iter([gradient / replicas for gradient in tf.clip_by_global_norm(present, norm)[0]])
        return [None if gradient is None else next(clipped) for gradient in gradients]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "group_clipnorm": self.group_clipnorm, "layer_decay": self.layer_decay}


def optimizer(
    backbone_rate: float = 1e-4,
    head_rate: float = 1e-3,
    proxy_factor: float = 100.0,
    *,
    method: str = "AdamW",
    weight_decay: float = 1e-4,
    steps: int | None = None,
    warmup: int = 0,
    decay: str = "linear",
    backbone_delay: int = 0,
    decay_every: int | None = None,
    decay_factor: float = 0.5,
    clipnorm: float | None = None,
    ema: float | None = None,
    epsilon: float | None = None,
    layer_decay: float = 1.0,
    head: "str | keras.layers.Layer | None" = None,
) -> GroupedOptimizer:
    """Return an optimizer with a learning rate for each of backbone, heads and proxies.

    A weight belongs to the heads if a head of `tf_detreg.heads`, or `head`, owns it, to the proxies if it is those of a
    loss, and else to the backbone, whatever its layer is called. Other weights of a loss or a regularizer are trained
    with the heads.

    Args:
        backbone_rate: Highest rate of the backbone. Default 1e-4.
        head_rate: Highest rate of main and rival head. Default 1e-3.
        proxy_factor: The proxies learn at `head_rate · proxy_factor`. Default 100.
        method: Name of a Keras optimizer: AdamW (default), Adam, SGD, RMSprop, Lion.
        weight_decay: Decoupled, of backbone and heads; proxies have none (only their direction counts). Default 1e-4.
        steps: Optimizer steps of the whole run, which a decay needs. Default: none, and then rates do not decay.
        warmup: Steps of the linear rise. Default 0.
        decay: `"linear"` (default), `"cosine"`, `"step"` or `"none"`.
        backbone_delay: Steps for which the backbone rests while head and proxies learn. Default 0.
        decay_every: Steps between two falls of `decay="step"`.
        decay_factor: Factor of a fall. Default 0.5.
        clipnorm: Each group's gradient is scaled down to this norm. Default: never.
        ema: Momentum, such as 0.999, of a moving average of the weights, kept with the optimizer. `training.averaged`
            swaps it in; runs evaluate and save with it. Default: none.
        epsilon: Of the adaptive methods. Default: the method's own.
        layer_decay: Layer-wise decay of the rate: each block of the backbone learns at `layer_decay` times the rate of
            the block above it, the topmost at `backbone_rate`. `backbones.blocks` names the blocks. Usual for
            transformers is 0.65 to 0.75. Default 1: all blocks at one rate.
        head: A layer of yours that counts as a head. Default: those of `tf_detreg.heads`. (A regular expression on the
            names in a variable's path still works, with a DeprecationWarning.)

    Returns:
        A `keras.optimizers.MultiOptimizer`.

    Raises:
        ValueError: For an unknown `method` or impossible values.

    Example:
        >>> grouped = optimizer(backbone_rate=1e-4, head_rate=1e-3, proxy_factor=10)
        >>> [(o.name, round(float(o.learning_rate), 6)) for o in grouped.optimizers]
        [('head', 0.001), ('proxies', 0.01), ('backbone', 0.0001)]

    Reference:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020 (faster proxies, frozen first epochs).
    """
    checks.choice("method", method, METHODS)
    checks.not_negative("backbone_rate", backbone_rate)
    checks.not_negative("head_rate", head_rate)
    checks.not_negative("proxy_factor", proxy_factor)
    checks.not_negative("weight_decay", weight_decay)
    if ema is not None:
        checks.within("ema", ema, 0, 1, "()")
    if epsilon is not None:
        checks.positive("epsilon", epsilon)
    if decay == "step" and steps is not None:
        checks.positive("decay_every", decay_every)  # steps from one fall to the next

    def make(group: str, rate: float, delay: int = 0) -> keras.optimizers.Optimizer:
        schedule = rate
        if steps is not None or warmup or delay:
            falls = decay if steps is not None else "none"
            schedule = WarmUpDecay(rate, steps, warmup, falls, delay, decay_every, decay_factor)
        options: dict[str, Any] = {} if epsilon is None else {"epsilon": epsilon}
        if ema is not None:
            options |= {"use_ema": True, "ema_momentum": ema, "ema_overwrite_frequency": None}
        if method != "Adam":
            options["weight_decay"] = 0.0 if group == "proxies" else weight_decay
        return getattr(keras.optimizers, method)(schedule, name=group, **options)

    if isinstance(head, str):
        warnings.warn(
            "`head` as a name is deprecated and will go in 0.3: give the layer itself. Heads of tf_detreg.heads are "
            "known without it.",
            DeprecationWarning,
            stacklevel=2,
        )
    groups = {"head": make("head", head_rate), "proxies": make("proxies", head_rate * proxy_factor)}
    backbone = make("backbone", backbone_rate, backbone_delay)
    return GroupedOptimizer(GroupMap(backbone, groups, head), group_clipnorm=clipnorm, layer_decay=layer_decay)


def check_callbacks(outer: Any, callbacks: Any) -> None:
    """Refuse callbacks that set learning rates which follow a schedule, before an epoch is spent.

    Args:
        outer: A model's optimizer, or None.
        callbacks: Of `fit`: one, a list, a `keras.callbacks.CallbackList`, or None.

    Raises:
        ValueError: If there is one, and the rates follow a schedule.
    """
    setters = keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler
    given = getattr(callbacks, "callbacks", callbacks)
    given = [given] if isinstance(given, keras.callbacks.Callback) else given or ()
    grouped = getattr(outer, "inner_optimizer", outer)
    if isinstance(grouped, GroupedOptimizer) and grouped.has_schedule:
        named = [type(callback).__name__ for callback in given if isinstance(callback, setters)]
        if named:
            raise ValueError(f"`callbacks` holds {named[0]}. {SCHEDULED}")


def inner_optimizers(outer: Any) -> list[Any]:
    """Return the optimizers that hold the state: of groups, of a loss-scaling wrapper, or the optimizer itself."""
    outer = getattr(outer, "inner_optimizer", outer)
    return list(getattr(outer, "optimizers", [outer]))


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[bool]:
    """Give the model its averaged weights within the block, if its optimizer keeps an average (`ema=`).

    The trained weights come back bit for bit at the end.

    Args:
        model: A compiled model.

    Yields:
        Whether there was an average to swap in.
    """
    outer = getattr(model, "optimizer", None)
    pairs = _averages(outer) if outer is not None and keras.ops.convert_to_numpy(outer.iterations) > 0 else []
    kept = [variable.numpy() for variable, _ in pairs]
    try:
        for variable, average in pairs:
            variable.assign(average)
        yield bool(pairs)
    finally:
        for (variable, _), value in zip(pairs, kept, strict=True):
            variable.assign(value)


def _averages(outer: Any) -> list[tuple[Any, ...]]:
    """Return (variable, its moving average) for all that keep one."""
    return [pair for inner in inner_optimizers(outer) for pair in moving_averages(inner)]

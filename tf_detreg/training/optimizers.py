"""One optimizer, three groups of weights: the backbone, the heads and the proxies each learn at their own rate."""

import contextlib
import math
import numbers
import re
from collections.abc import Iterator

import keras
import tensorflow as tf

from tf_detreg.training.replicas import replica_count
from tf_detreg.training.schedules import WarmUpDecay

# Names under which heads stand in a variable's path, with what Keras or `heads.Dueling` appends ("real_nvp_1").
HEADS = "head|rival|embedding|real_nvp|nice|glow|ffjord|linear|residual_mlp|dueling"
PROXIES = r".*proxies.*"
METHODS = ("AdamW", "Adam", "SGD", "RMSprop", "Lion")


@keras.saving.register_keras_serializable("tf_detreg")
class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """A `keras.optimizers.MultiOptimizer` whose groups are known by name. Made by `optimizer`.

    Under a distribution strategy gradients are clipped after they have been summed over the replicas, so that a clipped
    run, too, equals one process; Keras' own optimizers clip each replica's part.

    Args:
        optimizer_map: A `keras.optimizers.OptimizerMap` with an optimizer for each group, named like it.
        group_clipnorm: Each group's gradient is scaled down to this norm. Default: never.
        loss_scale_factor: Of `MultiOptimizer`.
        name: Of the optimizer.
    """

    def __init__(self, optimizer_map, group_clipnorm: float | None = None, loss_scale_factor=None, name=None):
        super().__init__(optimizer_map, loss_scale_factor=loss_scale_factor, name=name)
        if group_clipnorm is not None and not group_clipnorm > 0:
            raise ValueError(f"clipnorm must be above 0, received {group_clipnorm!r}.")
        self.group_clipnorm = group_clipnorm

    def group_of(self, variable) -> str:
        """`"backbone"`, `"head"` or `"proxies"`."""
        return self._optimizer_map(variable).name

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        for variable, average in _averages(self):
            # Keras starts at zero, which a group that rests at first would keep.
            average.assign(variable)

    def finalize_variable_values(self, var_list):
        """Puts the averages in place. All of them: the variables that train by now may be fewer than were built."""
        for variable, average in _averages(self):
            variable.assign(average)

    def apply(self, grads, trainable_variables=None):
        """Like Keras', but also for a part of the variables: a backbone that is frozen for now may be missing."""
        if not self.built:
            self.build(trainable_variables)
        parts = {id(inner): (inner, [], []) for inner in self.optimizers}
        for gradient, variable in zip(grads, trainable_variables or self._trainable_variables, strict=True):
            _, gradients, variables = parts[id(self._optimizer_map(variable))]
            gradients.append(gradient)
            variables.append(variable)
        for inner, gradients, variables in parts.values():
            if any(gradient is not None for gradient in gradients):
                inner.apply(self._clipped(gradients), variables)
            else:
                # A resting group's schedule goes on.
                inner.iterations.assign_add(1)
        self.iterations.assign_add(1)

    def _clipped(self, gradients: list) -> list:
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

    def get_config(self):
        return {**super().get_config(), "group_clipnorm": self.group_clipnorm}

    def check_groups(self, model) -> None:
        """Makes sure that a `MetricModel`'s heads are in the group of heads, and its backbone in its own.

        Raises:
            ValueError: If a layer's name hides from which part a weight is.
        """
        parts = {"head": [model.head, model.rival], "backbone": [model.backbone]}
        for group, layers in parts.items():
            for variable in [v for layer in layers if layer is not None for v in layer.trainable_variables]:
                if self.group_of(variable) != group:
                    raise ValueError(
                        f"optimizer puts the weight {variable.path!r} of the {group} into the group "
                        f"{self.group_of(variable)!r}. Say which layer is the head: training.optimizer(head=layer), or "
                        "rename the layer."
                    )


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
    head: "str | keras.layers.Layer | None" = None,
) -> GroupedOptimizer:
    """An optimizer with a learning rate for each of backbone, heads and proxies.

    A weight belongs to the proxies if its path holds "proxies", to the heads if a layer on its path is named like a
    head (`real_nvp`, `linear_1`, `head`, `rival` …), and else to the backbone.

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
        head: A name (regular expression), or the layer, that counts as the head in place of the known names.

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
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, received {method!r}.")
    rates = (backbone_rate, head_rate, proxy_factor)
    if not all(isinstance(rate, numbers.Real) and math.isfinite(rate) and rate >= 0 for rate in rates):
        raise ValueError(
            "backbone_rate, head_rate and proxy_factor must be finite numbers, none negative, received "
            f"{backbone_rate!r}, {head_rate!r} and {proxy_factor!r}."
        )
    if decay == "step" and steps is not None and not (decay_every and decay_every > 0):
        raise ValueError(
            f'decay="step" needs decay_every, the steps between two falls, above 0; received {decay_every!r}.'
        )

    def make(group: str, rate: float, delay: int = 0):
        schedule = rate
        if steps is not None or warmup or delay:
            falls = decay if steps is not None else "none"
            schedule = WarmUpDecay(rate, steps, warmup, falls, delay, decay_every, decay_factor)
        options = {} if epsilon is None else {"epsilon": epsilon}
        if ema is not None:
            options |= {"use_ema": True, "ema_momentum": ema, "ema_overwrite_frequency": None}
        if method != "Adam":
            options["weight_decay"] = 0.0 if group == "proxies" else weight_decay
        return getattr(keras.optimizers, method)(schedule, name=group, **options)

    name = re.escape(head.name) if isinstance(head, keras.layers.Layer) else head or HEADS
    in_head = rf"(?!{PROXIES})(.*/)?({name})(_[^/]*)?/.*"
    groups = {in_head: make("head", head_rate), PROXIES: make("proxies", head_rate * proxy_factor)}
    backbone = make("backbone", backbone_rate, backbone_delay)
    return GroupedOptimizer(keras.optimizers.OptimizerMap(backbone, groups), group_clipnorm=clipnorm)


def inner_optimizers(outer) -> list:
    """The optimizers that hold the state: of groups, of a loss-scaling wrapper, or the optimizer itself."""
    outer = getattr(outer, "inner_optimizer", outer)
    return list(getattr(outer, "optimizers", [outer]))


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[bool]:
    """Within the block the model has its averaged weights, if its optimizer keeps an average (`ema=`).

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


def _averages(outer) -> list[tuple]:
    """(variable, its moving average) for all that keep one."""
    return [
        pair
        for inner in inner_optimizers(outer)
        if inner.use_ema and inner.built
        for pair in zip(inner._trainable_variables, inner._model_variables_moving_average, strict=True)
    ]

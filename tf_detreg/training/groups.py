"""Which weights belong to the backbone, the heads and the proxies."""

import logging
import re
from collections.abc import Iterable
from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import weight_groups
from tf_detreg.backbones.blocks import layer_factors
from tf_detreg.training.schedules import ScaledSchedule

logger = logging.getLogger(__name__)


@keras.saving.register_keras_serializable("tf_detreg")
class GroupMap(keras.optimizers.OptimizerMap):
    """An optimizer for each weight, by the layer that owns it.

    Args:
        default_optimizer: Of the backbone.
        optimizer_map: `"head"` and `"proxies"` to their optimizers.
        head: A layer that counts as a head beside those of `tf_detreg.heads`, or a regular expression on names in a
            variable's path. Default: none.
    """

    def __init__(
        self,
        default_optimizer: keras.optimizers.Optimizer,
        optimizer_map: dict[str, keras.optimizers.Optimizer] | None = None,
        head: "keras.layers.Layer | str | None" = None,
    ) -> None:
        super().__init__(default_optimizer, optimizer_map)
        self.head = head
        self._groups: dict[int, str] = {}
        self._blocks: dict[int, keras.optimizers.Optimizer] = {}

    @classmethod
    def of(cls, optimizers: keras.optimizers.OptimizerMap) -> "GroupMap":
        """Return the map itself, or of a `keras.optimizers.OptimizerMap` one that knows layers before patterns."""
        return (
            optimizers if isinstance(optimizers, cls) else cls(optimizers.default_optimizer, dict(optimizers.items()))
        )

    def __call__(self, variable: keras.Variable) -> keras.optimizers.Optimizer:
        by_name = {optimizer.name: optimizer for optimizer in self.values()}
        known = self._groups or weight_groups.groups_of() | weight_groups.groups_of(self._own_layers())
        group = known.get(id(variable))
        if group != "proxies" and self._is_named(variable):
            group = "head"
        if group == "backbone":
            found = self.default_optimizer
        else:
            # A map of an older version, or of the user's own making, has patterns.
            found = by_name[group] if group in by_name else super().__call__(variable)
        return self._blocks.get(id(variable), found) if found is self.default_optimizer else found

    def split_blocks(self, variables: Iterable[keras.Variable], decay: float) -> None:
        """Give each block of the backbone an optimizer: the default one's copy at a rate that `decay` lowers.

        Args:
            variables: That the optimizer is built on, in the order of their layers.
            decay: Factor of the rate from one block to the one below it.
        """
        backbone = [variable for variable in variables if self(variable) is self.default_optimizer]
        factors = layer_factors([variable.path for variable in backbone], decay)
        made = {1.0: self.default_optimizer}
        # Plain Keras builds its optimizer inside the first step's graph, where no rate can be read.
        with tf.init_scope():
            for factor in dict.fromkeys(factors):
                if factor not in made:
                    made[factor] = _slower(self.default_optimizer, factor, f"{self.default_optimizer.name}_{len(made)}")
        self._blocks = {id(v): made[factor] for v, factor in zip(backbone, factors, strict=True)}

    def group(self, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        """Return the optimizer that stands for an optimizer's group: the backbone's for those of its blocks."""
        return self.default_optimizer if any(optimizer is each for each in self._blocks.values()) else optimizer

    def take_parts(self, model: Any) -> None:
        """Take the groups from the parts of a `MetricModel`: heads, losses and regularizers; all else is backbone."""
        parts = [model.head, model.rival, model.loss_function, model.rival_loss, *model.regularizers]
        self._groups = {id(variable): "backbone" for variable in model.backbone.variables}
        layers = {id(part): part for part in parts if isinstance(part, keras.layers.Layer)}
        self._groups |= weight_groups.groups_of(layers.values())
        self._groups |= weight_groups.groups_of(self._own_layers())

    def look_up(self, variables: Iterable[keras.Variable]) -> None:
        """Settle the groups of variables whose model is not known, by the heads and losses that are alive."""
        if not self._groups:
            alive = weight_groups.groups_of() | weight_groups.groups_of(self._own_layers())
            self._groups = {id(v): alive[id(v)] for v in variables if id(v) in alive}
            if "head" not in self._groups.values() and not any(map(self._is_named, variables)):
                logger.warning(
                    "No weight belongs to a head of tf_detreg.heads, so all learn at the backbone's rate. "
                    "training.optimizer(head=layer) says which layer is the head."
                )

    def _own_layers(self) -> list[keras.layers.Layer]:
        return [self.head] if isinstance(self.head, keras.layers.Layer) else []

    def _is_named(self, variable: keras.Variable) -> bool:
        """Return whether a layer on the variable's path has the name that was given for the head."""
        if isinstance(self.head, keras.layers.Layer) or not self.head:
            return False
        return re.fullmatch(rf"(.*/)?({self.head})(_[^/]*)?/.*", variable.path) is not None

    def get_config(self) -> dict[str, Any]:
        # A layer is known by its name after loading, where nothing else tells which it was.
        name = re.escape(self.head.name) if isinstance(self.head, keras.layers.Layer) else self.head
        return {**super().get_config(), "head": name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        made = super().from_config({k: v for k, v in config.items() if k != "head"}, custom_objects)
        made.head = config.get("head")
        result: Self = made
        return result


def _slower(optimizer: keras.optimizers.Optimizer, factor: float, name: str) -> keras.optimizers.Optimizer:
    """Return a copy of an optimizer at a part of its rate."""
    config = optimizer.get_config()
    rate = config["learning_rate"]
    if isinstance(rate, dict):
        rate = ScaledSchedule(keras.optimizers.schedules.deserialize(rate), factor)
    else:
        rate *= factor
    return type(optimizer).from_config({**config, "name": name, "learning_rate": rate})

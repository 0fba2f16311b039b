"""Two heads on one backbone that pull its features in opposite directions."""

from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.heads.base import Head
from tf_detreg.heads.features import check_finite
from tf_detreg.shapes import Shape


@keras.saving.register_keras_serializable("tf_detreg")
class Dueling(keras.layers.Layer):
    """A main head that lowers R and a rival that raises it, both reading the same features.

        min over all parameters of   loss(main(x)) + λ₁·R(main) − λ₂·R(rival)

    The rival is given the opposite sign, so that the backbone cannot lower R simply by shrinking what every head sees:
    features that make the main head smooth still have to let the rival be steep. Only the main head's embeddings are
    returned; at inference the rival does not run, and nothing of it is needed.

    The literal objective gives the rival no metric loss. `tf_detreg.training.MetricModel` takes this pair apart and can
    add one (`rival_loss_weight`), with the main head's proxies or with proxies of its own.

    Args:
        main: The head that stays; its `penalty` is λ₁.
        rival: The head that is thrown away; its `penalty` is −λ₂, so give it a negative one. Default: a second head
            of the main one's configuration with the opposite penalty (λ₂ = λ₁).
        name, trainable: As in `keras.layers.Layer`.
        dtype: Has no effect: the pair computes in the precision of `main`.

    Call arguments:
        features: `(B, F)` floats, F static.
        training: Whether dropout acts and the two penalties are added.

    Returns:
        The main head's embeddings, `(B, main.dim)`.

    Raises:
        ValueError: If `main` or `rival` is not a head, or the rival's penalty is positive.

    Example:
        >>> from tf_detreg.heads import RealNVP
        >>> pair = Dueling(RealNVP(8, depth=2, hidden=16, penalty=0.05, measure="shifted"))
        >>> pair.rival.penalty
        -0.05
        >>> pair(tf.random.normal((3, 20)), training=True).shape, len(pair.losses)
        (TensorShape([3, 8]), 2)

    Reference:
        "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission), equation 11.
    """

    def __init__(
        self,
        main: Head,
        rival: Head | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        for role, head in (("main", main), ("rival", rival)):
            if not (role == "rival" and head is None):
                checks.instance(role, head, Head, "a head such as heads.RealNVP")
        if rival is not None and rival.penalty > 0:
            raise checks.invalid("rival", "have a penalty of 0 or below (it raises R)", f"penalty={rival.penalty}")
        super().__init__(name=name, dtype=main.dtype_policy, trainable=trainable)
        self.main = main
        self.rival = rival_of(main) if rival is None else rival
        self.dim = main.dim

    def build(self, input_shape: Shape) -> None:
        for head in (self.main, self.rival):
            if not head.built:
                head.build(input_shape)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        check_finite(features, self.name)
        if training:
            self.rival(features, training=True)
        return self.main(features, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.dim)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), "main": serialize(self.main), "rival": serialize(self.rival)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{**config, "main": deserialize(config["main"]), "rival": deserialize(config["rival"])})


def rival_of(main: Head) -> Head:
    """Return a second head of the same configuration with the opposite penalty, if it has one."""
    config = {**main.get_config(), "name": f"{main.name}_rival"}
    if "penalty" in config:
        config["penalty"] = -main.penalty
    return type(main).from_config(config)

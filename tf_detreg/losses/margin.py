"""Margin loss with a learnable boundary between positives and negatives."""

from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import checks
from tf_detreg.losses.averages import average
from tf_detreg.losses.labels import check_labels
from tf_detreg.losses.loss_layer import LossLayer
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.pairs import MinedPairs, Pairs, occurrences
from tf_detreg.shapes import Shape


class _Boundary(PairLoss):
    """The rule of the margin loss for a given β; the layer sets it before each call."""

    default_distance = "euclidean"

    def __init__(
        self, num_classes: int | None, alpha: float, nu: float, distance: str, normalize: bool, miner: Any
    ) -> None:
        super().__init__(distance, normalize, miner)
        self.num_classes = num_classes
        self.alpha = alpha
        self.nu = nu
        self.beta = None

    def check(self, labels: Any, embeddings: tf.Tensor) -> tf.Tensor:
        return check_labels(labels, embeddings, self.num_classes)

    def mined(self, pairs: Pairs) -> Pairs:
        """Return the pairs as they are: triplets cannot be put as masks, and `per_anchor` asks the miner itself."""
        return pairs

    def per_anchor(self, pairs: Pairs) -> tf.Tensor:
        matrix = pairs.matrix
        beta = tf.cast(self.beta, matrix.dtype)
        beta = tf.gather(beta, pairs.labels) if self.num_classes else tf.repeat(beta, tf.size(pairs.labels))
        pull = tf.nn.relu(matrix - beta[:, None] + self.alpha)
        push = tf.nn.relu(beta[:, None] - matrix + self.alpha)
        positives, negatives = self.weights(pairs, matrix.dtype)
        sums = tf.reduce_sum(pull * positives + push * negatives, axis=1)
        if self.nu:
            sums += self.nu * beta * tf.reduce_sum(positives, axis=1)
        count = tf.reduce_sum(tf.where(pull > 0, positives, 0) + tf.where(push > 0, negatives, 0))
        return average(sums, count)

    def weights(self, pairs: Pairs, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        """Return how often each positive and each negative pair counts, `(B, M)`."""
        if self.miner is None:
            return tf.cast(pairs.positives, dtype), tf.cast(pairs.negatives, dtype)
        mined = self.mine(pairs)
        if len(mined) == 3:
            anchors, positives, negatives = mined
            shape = tf.shape(pairs.positives)
            return occurrences(anchors, positives, shape, dtype), occurrences(anchors, negatives, shape, dtype)
        kept = pairs.restricted(MinedPairs(*mined))
        return tf.cast(kept.positives, dtype), tf.cast(kept.negatives, dtype)


@keras.saving.register_keras_serializable("tf_detreg")
class Margin(LossLayer):
    r"""Margin loss: a layer, because it learns the boundary β.

    `L = ( Σ_{pos} [d_ij - β_{y_i} + α]₊ + Σ_{neg} [β_{y_i} - d_ij + α]₊ + ν Σ β_{y_i} ) / #{terms above 0}`

    Pairs count once each; with a miner of triplets, such as distance-weighted sampling, each triplet adds its two
    pairs, as often as they occur. The ν term runs over the pairs (or triplets) that count.

    Paper settings: α = 0.2, β = 1.2 learned for each class, ν = 0, `miner=miners.DistanceWeighted()`, and batches of 14
    classes × 5 images. The authors' code gives β a rate of 0.1 where the network has 1e-4; Roth et al. give it 5e-4.
    Other code: pytorch-metric-learning forms every triplet by default, so that a pair counts once for each partner;
    with the same triplets the values are equal.

    Args:
        num_classes: Number of classes, for a β of each class. Default None: one β for all.
        alpha: α. Default 0.2.
        beta: Start of β. Default 1.2.
        nu: ν. Default 0.0.
        learn: Train β. Default True.
        distance: `"euclidean"`, `"squared"` or `"cosine"`. Default `"euclidean"`.
        normalize: Scale the embeddings to length 1 first. Default True.
        miner: Which pairs or triplets count. Default None: all pairs.
        name, dtype, trainable: As in `keras.layers.Layer`. Computation is in float32, or float64 if asked.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`, each in `0 .. C - 1` if `num_classes` is given.
        embeddings: Floats `(B, dim)`.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> loss = Margin(num_classes=2)
    >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])), 4)
    0.5624

    Reference: Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        alpha: float = 0.2,
        beta: float = 1.2,
        nu: float = 0.0,
        learn: bool = True,
        distance: str = "euclidean",
        normalize: bool = True,
        miner: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if num_classes is not None:
            num_classes = checks.integer("num_classes", num_classes, 1)
        self.num_classes = num_classes
        self.alpha = checks.number("alpha", alpha)
        self.beta_start = checks.number("beta", beta)
        self.nu = checks.number("nu", nu)
        self.learn = learn
        self.rule = _Boundary(num_classes, alpha, nu, distance, normalize, miner)

    def build(self, labels_shape: Shape | None = None, embeddings_shape: Shape | None = None) -> None:
        start = keras.initializers.Constant(self.beta_start)
        self.beta = self.add_weight(
            name="beta", shape=(self.num_classes or 1,), initializer=start, trainable=self.learn
        )
        self.built = True

    @property
    def miner(self) -> Any:
        """Return which pairs or triplets count."""
        return self.rule.miner

    def call(self, labels: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        self.rule.beta = tf.convert_to_tensor(self.beta)
        return tf.reduce_mean(self.rule.call(labels, tf.cast(embeddings, self.precision)))

    def check(self, labels: Any, embeddings: tf.Tensor) -> tf.Tensor:
        """Return the labels as int32 `(B,)`, or raise an error."""
        return self.rule.check(labels, embeddings)

    def against(
        self, labels: Any, embeddings: Any, reference_labels: Any, references: Any, valid: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return one value for each anchor, `(B,)`, compared with other vectors, as in `PairLoss.against`."""
        self.rule.beta = tf.convert_to_tensor(self.beta)
        embeddings, references = (tf.cast(vectors, self.precision) for vectors in (embeddings, references))
        return self.rule.against(labels, embeddings, reference_labels, references, valid)

    def get_config(self) -> dict[str, Any]:
        rule = self.rule.get_config()
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "alpha": self.alpha,
            "beta": self.beta_start,
            "nu": self.nu,
            "learn": self.learn,
            **{key: rule[key] for key in ("distance", "normalize", "miner")},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        if isinstance(config.get("miner"), dict):
            config["miner"] = keras.saving.deserialize_keras_object(config["miner"])
        return cls(**config)

"""The model that trains an embedder: metric loss, determinant regularization, rival head, further regularizers."""

import os
from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from tf_detreg import _compat, checks
from tf_detreg._compat import BuiltBeforehand, between_machines, clear_losses, inner_layers, loss_tracker
from tf_detreg.backbones.lora import merge_lora
from tf_detreg.backbones.pixel_range import PixelRange
from tf_detreg.backbones.scaling import PixelScaling
from tf_detreg.losses.n_pairs_multilabel import NPairsMultilabel
from tf_detreg.regularizers.base import Context
from tf_detreg.replicas import GlobalBatch
from tf_detreg.shapes import Shape
from tf_detreg.training.fit_input import check_arrays, check_dense, check_shapes, class_numbers, plain_errors
from tf_detreg.training.interpolation import Interpolation, as_interpolation
from tf_detreg.training.optimizers import NOTHING_TRAINS, GroupedOptimizer, check_callbacks
from tf_detreg.training.parts import check_parts, split_embedder
from tf_detreg.training.step import (
    at_least_one_row,
    images_and_labels,
    loss_value,
    miner_draws,
    numbered,
    proxies_of,
    rows_of_replica,
    through,
    width_of_proxies,
)


@keras.saving.register_keras_serializable("tf_detreg")
class MetricModel(BuiltBeforehand, keras.Model):
    r"""Trains an embedder on a metric loss and on the regularity R of its head's Jacobian determinant.

        L = loss(e) + w·loss(e′) + λ·R(Z) + λ′·R(Z′) + Σ_k w_k·regularizer_k

    `e` and `Z` belong to the embedder's head, `e′` and `Z′` to the rival. **One rule for signs**: each head's own
    `penalty` is its λ, as it stands; a negative one maximizes R. So a rival is a head with a negative penalty, and with
    `w = 0`, the paper's literal reading, it gets no metric loss at all.

    Calling the model is inference with the embedder alone. `fit` logs every term of the objective by its own name and
    unweighted: `loss` (the objective itself), `metric_loss`, `determinant`, `rival_loss`, `rival_determinant`, each
    regularizer's name, and `layer_losses` (what the backbone's layers add by themselves).

    Under a distribution strategy the terms are those of the *global* batch (see `docs/scaling.md`).

    Args:
        embedder: `keras.Sequential` or functional model, images → unit vectors, whose last layer is a head of
            `tf_detreg.heads`. A `heads.Dueling` head is taken apart: its rival becomes `rival`.
        loss: `loss(labels, embeddings)`: a pair loss (`keras.losses.Loss`) or a proxy loss (a layer that owns its
            proxies; they are trained and saved with the model).
        rival: A second head on the same features, used in training only. Default: none.
        rival_loss_weight: `w`. Default 0.
        rival_proxies: `"shared"` (default): the rival is compared with the main head's proxies; `"own"`: with its own.
        interpolation: `training.Interpolation`, or ε for a default one. 0 (default): off. Mixed points enter R alone.
        regularizers: Further terms, `tf_detreg.regularizers`. Default: none. Of several with one name, the log numbers
            the later ones: `lipschitz`, `lipschitz_1`.

    Call arguments:
        images: `(B, H, W, 3)`, values 0..255.

    Returns:
        `(B, dim)` rows of length 1.

    Raises:
        ValueError: If the embedder has no head at its end, more than one input or output, or is not built; if an
            argument is of the wrong kind, or two contradict each other.

    Example:
        >>> from tf_detreg import heads, losses
        >>> images = keras.Input((8, 8, 3))
        >>> features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
        >>> embedder = keras.Model(images, heads.RealNVP(8, depth=2, hidden=8, penalty=1.0)(features))
        >>> model = MetricModel(embedder, losses.ProxyAnchor(num_classes=4))
        >>> model.compile(keras.optimizers.AdamW(1e-3))
        >>> x, y = tf.random.uniform((8, 8, 8, 3), maxval=255.0), tf.constant([0, 0, 1, 1, 2, 2, 3, 3])
        >>> sorted(model.fit(x, y, batch_size=8, verbose=0).history)
        ['determinant', 'loss', 'metric_loss']
        >>> model.embedder(x).shape
        TensorShape([8, 8])

    Reference:
        "Determinant Regularization for Deep Metric Learning" (ICLR 2023 submission), equations 10 and 11.
    """

    def __init__(
        self,
        embedder: keras.Model,
        loss: Any,
        rival: Any = None,
        rival_loss_weight: float = 0.0,
        interpolation: "Interpolation | float" = 0.0,
        regularizers: Sequence[Any] = (),
        rival_proxies: str = "shared",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        backbone, head = split_embedder(embedder)
        check_parts(loss, rival, regularizers)
        if hasattr(head, "rival"):
            if rival is not None:
                raise checks.invalid(
                    "rival", "be None with an embedder that ends in a Dueling head, which has one", checks.shown(rival)
                )
            head, rival = head.main, head.rival
            embedder = keras.Model(backbone.inputs[0], head(backbone.outputs[0]), name=embedder.name)
        if rival is None and rival_loss_weight:
            raise checks.invalid("rival_loss_weight", "be 0 without a rival", checks.shown(rival_loss_weight))
        checks.choice("rival_proxies", rival_proxies, ("shared", "own"))
        if rival is head:
            raise checks.invalid("rival", "be another head, with other weights", "the embedder's head")
        self.embedder, self.backbone, self.head, self.rival = embedder, backbone, head, rival
        self.loss_function = loss
        self.rival_loss_weight = checks.number("rival_loss_weight", rival_loss_weight)
        self.rival_proxies = rival_proxies
        self.rival_loss = self._loss_of_rival()
        # A miner is no layer: without this its generator's state would be in no checkpoint.
        self._draws = [miner_draws(each) for each in {id(loss): loss, id(self.rival_loss): self.rival_loss}.values()]
        self.interpolation = as_interpolation(interpolation)
        self.regularizers = list(regularizers)
        self._build_parts()
        self._regularizer_terms = numbered([regularizer.name for regularizer in self.regularizers])
        self._terms = {name: keras.metrics.Mean(name=name) for name in self._term_names()}
        self._pixel_range = PixelRange()
        self._empty_terms = set(self._terms)  # those that no step has filled yet

    # What the model is at inference.

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.embedder(images, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.head.dim)

    # Training.

    def compile(self, optimizer: Any = "adam", loss: None = None, *, jit_compile: bool = False, **kwargs: Any) -> None:
        """Compile as `keras.Model.compile` does, without a loss: the model has its own.

        Args:
            optimizer: See `tf_detreg.training.optimizer` for groups. Default `"adam"`, one rate for all.
            loss: None alone, which Keras hands over when it loads a model.
            jit_compile: XLA. Default false: on CPUs it costs 6–21 s at the first step and does not always pay.
            **kwargs: The other arguments of `keras.Model.compile`.

        Raises:
            ValueError: If a `loss` or `metrics` are given.
        """
        if loss is not None:
            raise checks.invalid(
                "loss",
                "be given to MetricModel(embedder, loss), which trains its proxies",
                f"{loss!r} in compile()",
            )
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise checks.invalid(
                "metrics",
                "be left out, since those of single batches say little",
                checks.shown(kwargs.get("metrics") or kwargs["weighted_metrics"]),
                "Use callbacks.RetrievalEvaluation.",
            )
        if isinstance(optimizer, GroupedOptimizer):
            optimizer.take_parts(self)
        for layer in self._scaling_layers():
            # Whoever asks for XLA gets it, without the look at the pixels' range.
            layer.supports_jit = layer.supports_jit or jit_compile is True
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train like `keras.Model.fit`, without its warning that `shuffle=True` leaves a dataset as it is.

        Raises:
            ValueError: If a callback sets learning rates that follow a schedule, or every weight is frozen.
        """
        if not self.trainable_variables:
            raise ValueError(NOTHING_TRAINS)
        check_callbacks(self.optimizer, kwargs.get("callbacks"))
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)
        x, y = check_arrays(x, args[0] if args else kwargs.get("y"), self._image_shape())
        if args:
            args = (y, *args[1:])
        elif y is not None:
            kwargs["y"] = y
        with plain_errors(), _compat.forgetting_gradients():
            return super().fit(x, *args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras only calls this by itself where compile() is not overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def export(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Export as `keras.Model.export` does, but the embedder alone, low-rank factors merged.

        See also `tf_detreg.export`.
        """
        return merge_lora(self.embedder).export(filepath, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels = images_and_labels(data)
        check_dense(images, labels)
        if not self._scaling_layers():
            self._pixel_range(images)
        # Layers called one by one keep what they added in earlier calls; the objective wants this step's alone.
        clear_losses(self)
        with tf.GradientTape() as tape:
            objective, terms, batch = self.objective(images, labels, training=True)
            scaled = self.optimizer.scale_loss(objective)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = batch.agree_on_overflow(gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._log(objective, terms, batch)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels = images_and_labels(data)
        clear_losses(self)
        return self._log(*self.objective(images, labels, training=False))

    def objective(
        self, images: tf.Tensor, labels: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], GlobalBatch]:
        """Return the objective of a batch and its terms.

        Args:
            images: `(B, H, W, 3)`.
            labels: Integers, `(B,)` or `(B, 1)`, or one-hot rows of floats `(B, C)`.
            training: Whether dropout and interpolation act.

        Returns:
            The objective; its terms by name, unweighted; the batch. With several replicas, this replica's shares.
        """
        if labels is None:
            raise checks.invalid("labels", "be one class number for each image", "none", "Fit on (images, labels).")
        check_dense(images, labels)
        labels = tf.convert_to_tensor(labels)
        if tf.TensorShape(images.shape).rank is not None and labels.shape.rank is not None:
            check_shapes(tuple(images.shape), tuple(labels.shape), self._image_shape())
        labels = class_numbers(labels) if not isinstance(self.loss_function, NPairsMultilabel) else labels
        labels = tf.squeeze(labels, -1) if labels.shape.rank == 2 and labels.shape[-1] == 1 else labels
        if self.interpolation is not None and labels.shape.rank not in (1, None):
            raise checks.invalid(
                "labels",
                "have shape (batch,) or (batch, 1), one class number for each image, with interpolation",
                f"shape {labels.shape}",
            )
        batch = GlobalBatch(tf.shape(images)[0])
        features = self.backbone(at_least_one_row(images, batch), training=training)
        all_labels = batch.gather(labels)
        mixing = (labels, all_labels) if training and self.interpolation is not None else None

        z, embeddings, regularity = through(self.head, features, batch, training, self.interpolation, mixing)
        embeddings = batch.gather(embeddings)
        terms = {"metric_loss": batch.share(loss_value(self.loss_function, all_labels, embeddings, training))}
        terms["determinant"] = batch.local_share(regularity)
        objective = terms["metric_loss"] + self.head.penalty * terms["determinant"]

        if self.rival is not None:
            _, others, regularity = through(self.rival, features, batch, training, self.interpolation, mixing)
            terms["rival_determinant"] = batch.local_share(regularity)
            objective += self.rival.penalty * terms["rival_determinant"]
            if self.rival_loss_weight:
                terms["rival_loss"] = batch.share(
                    loss_value(self.rival_loss, all_labels, batch.gather(others), training)
                )
                objective += self.rival_loss_weight * terms["rival_loss"]

        if self.regularizers:
            context = self._context(batch, all_labels, images, rows_of_replica(features, batch), z, embeddings)
            for term, regularizer in zip(self._regularizer_terms, self.regularizers, strict=True):
                terms[term] = batch.share(tf.cast(regularizer.penalty(context), objective.dtype))
                objective += regularizer.weight * terms[term]

        if self.losses:
            terms["layer_losses"] = batch.share(tf.add_n([tf.cast(term, objective.dtype) for term in self.losses]))
            objective += terms["layer_losses"]
        return objective, terms, batch

    def _context(
        self,
        batch: GlobalBatch,
        labels: tf.Tensor,
        images: tf.Tensor,
        features: tf.Tensor,
        z: Any,
        embeddings: tf.Tensor,
    ) -> Context:
        """Return what the regularizers may look at."""
        return Context(
            labels=labels,
            images=images,
            features=features,
            z=z,
            embeddings=embeddings,
            proxies=proxies_of(self.loss_function),
            proxy_labels=getattr(self.loss_function, "proxy_labels", None),
            head=self.head,
            backbone=self.backbone,
            gather=batch.gather,
        )

    def _log(self, objective: tf.Tensor, terms: dict[str, tf.Tensor], batch: GlobalBatch) -> dict[str, tf.Tensor]:
        """Add the terms to the epoch's means, each sample with equal weight, and return the means."""
        weight = tf.cast(batch.local, tf.float32)
        # A share times the size of the global batch, summed over the replicas, is the term times that size.
        scale = tf.cast(batch.total, tf.float32)
        for metric, value in [(loss_tracker(self), objective), *((self._terms[k], v) for k, v in terms.items())]:
            metric.total.assign_add(tf.cast(value, tf.float32) * scale)
            metric.count.assign_add(weight)
        self._empty_terms -= terms.keys()
        results = self.get_metrics_result()
        # Between machines Keras averages along the first axis, which a scalar does not have.
        return {name: value[None] for name, value in results.items()} if between_machines() else results

    def get_metrics_result(self) -> dict[str, Any]:
        # Keras reads the means over all replicas from here only if a step's log has the very same names.
        return {name: value for name, value in super().get_metrics_result().items() if name not in self._empty_terms}

    # Assembly.

    def _image_shape(self) -> tuple[int | None, ...]:
        return tuple(self.backbone.inputs[0].shape[1:])

    def _scaling_layers(self) -> list[PixelScaling]:
        """Return the layers that look at the pixels' range by themselves."""
        return [layer for layer in inner_layers(self.backbone, recursive=True) if isinstance(layer, PixelScaling)]

    def _loss_of_rival(self) -> Any:
        # A memory of the main head's embeddings is of no use to the rival, so it always gets its own.
        own = self.rival_proxies == "own" or hasattr(self.loss_function, "memory_size")
        if self.rival is None or not own or not isinstance(self.loss_function, keras.layers.Layer):
            return self.loss_function
        config = self.loss_function.get_config()
        return type(self.loss_function).from_config({**config, "name": f"{self.loss_function.name}_rival"})

    def _build_parts(self) -> None:
        """Create the weights of rival and proxies, so that the model is whole before an optimizer sees it."""
        width = int(self.backbone.outputs[0].shape[-1])
        if self.rival is not None and not self.rival.built:
            self.rival.build((None, width))
        for regularizer in self.regularizers:
            if not regularizer.built:
                regularizer.build((None, self.head.dim))
        for loss, dim in ((self.loss_function, self.head.dim), (self.rival_loss, getattr(self.rival, "dim", None))):
            if isinstance(loss, keras.layers.Layer) and not loss.built:
                loss.build((None,), (None, dim))
        if self.rival_loss_weight and width_of_proxies(self.rival_loss) not in (None, self.rival.dim):
            raise checks.invalid(
                "rival",
                f"have the main head's dim={self.head.dim}, with whose proxies it is compared",
                f"dim={self.rival.dim}",
                'Give both heads one dim, or rival_proxies="own".',
            )
        self.built = True

    def _term_names(self) -> list[str]:
        # What layers add shows only when they are called: it always has a place, and logs leave out what stays empty.
        names = ["metric_loss", "determinant", "layer_losses"]
        if self.rival is not None:
            names += ["rival_determinant"] + ["rival_loss"] * bool(self.rival_loss_weight)
        names += self._regularizer_terms
        if len({"loss", *names}) <= len(names):
            raise checks.invalid("regularizers", "have different names in the log", f"{names}", "Give name=….")
        return names

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "embedder": serialize(self.embedder),
            "loss": serialize(self.loss_function),
            "rival": self.rival and serialize(self.rival),
            "rival_loss_weight": self.rival_loss_weight,
            "rival_proxies": self.rival_proxies,
            "interpolation": self.interpolation and serialize(self.interpolation),
            "regularizers": [serialize(regularizer) for regularizer in self.regularizers],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        config = dict(config)
        for key in ("embedder", "loss", "rival", "interpolation"):
            if config[key]:
                config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        config["regularizers"] = [
            keras.saving.deserialize_keras_object(item, custom_objects=custom_objects)
            for item in config["regularizers"]
        ]
        config["interpolation"] = config["interpolation"] or 0.0
        return cls(**config)

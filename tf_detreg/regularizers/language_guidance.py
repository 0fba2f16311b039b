"""Language guidance: similarities between images of two classes should follow those between the classes' names."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tf_detreg import checks, deprecated
from tf_detreg.regularizers.base import Context, Regularizer, some_rows
from tf_detreg.vectors import unit

DIVERGENCES = ("backward", "forward")
PLACES = ("auto", "batch", "proxies")


@keras.saving.register_keras_serializable("tf_detreg")
class LanguageGuidance(Regularizer):
    r"""Language guidance, by expert names or by pseudo-names.

    `S_ij = z_i·z_j`,  `T_ij = mean_k cos(t_k(y_i), t_k(y_j)) + g`;  where `y_i = y_j` both are set to `1 + g`
    `forward = τ²/B Σ_i KL( softmax(T_i/τ) || softmax(S_i/τ) )`,  `backward` with the two exchanged

    `t_k(c)` is the embedding of the k-th name of class c. **Expert**: one name a class, an array `(C, e)`.
    **Pseudo**: the `k` names that an ImageNet classifier finds most often for the class, an array `(C, k, e)`; see
    `top_class_names` and `embed_names`. The names' similarities are constants: no gradient flows into them.

    Paper settings: CLIP ViT-B/32 on "a photo of a {}", g = 1, τ = 1, k = 5; weight 7.5 (CUB) or 6 (Cars) for
    multi-similarity loss at 128 dimensions, 10 and 5.5 at 512. The authors' code uses the backward divergence and
    shifts T by g, but not S; both are kept here.

    Args:
        texts: Text embeddings `(C, e)` or `(C, k, e)`, normalized inside.
        divergence: `"backward"` or `"forward"`. Default `"backward"`.
        on: `"batch"`, `"proxies"` (each unit proxy stands for an image of its class), or `"auto"`: proxies where the
            loss has them. Default `"auto"`.
        shift: g. Default 1.0.
        temperature: τ. Default 1.0.
        max_rows: With more proxies than this, each step draws so many at random. Default 1024.
        shape: Shape of `texts`, in its place; for loading a saved model. Default None.
        weight: Factor in the objective. Default 1.0.

    Call arguments:
        context: With `labels (B,)` and `embeddings (B, dim)`, or with `proxies` and `proxy_labels`.

    Raises:
        ValueError: If an argument is wrong.
        tf.errors.InvalidArgumentError: If a label has no text.

    Example:

    >>> from tf_detreg.regularizers import Context
    >>> guide = LanguageGuidance(np.eye(3), on="batch")
    >>> context = Context(labels=tf.constant([0, 1, 2]), embeddings=tf.eye(3))
    >>> bool(guide.penalty(context) > 0)
    True

    Reference: Roth et al., "Integrating Language Guidance into Vision-based Deep Metric Learning", CVPR 2022.
    """

    def __init__(
        self,
        texts: Any = None,
        divergence: str = "backward",
        on: str = "auto",
        shift: float = 1.0,
        temperature: float = 1.0,
        max_rows: int = 1024,
        shape: Sequence[int] | None = None,
        weight: float = 1.0,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(weight, name=name, dtype=dtype, trainable=trainable)
        self.divergence = checks.choice("divergence", divergence, DIVERGENCES)
        self.on = checks.choice("on", on, PLACES)
        self.shift = checks.number("shift", shift)
        self.temperature = checks.positive("temperature", temperature)
        self.max_rows = checks.integer("max_rows", max_rows, 1)
        self.draws = keras.random.SeedGenerator(0)  # a random seed would shift those of all that is made later
        self.texts = self._frozen(texts, shape)
        self.built = True

    def _frozen(self, texts: Any, shape: Sequence[int] | None) -> keras.Variable:
        if texts is None and shape is None:
            raise checks.invalid("texts", "be an array of text embeddings, one row a class", "None")
        values = np.zeros(tuple(shape or ()), "float32") if texts is None else np.asarray(texts, "float32")
        if values.ndim not in (2, 3) or not np.isfinite(values).all():
            raise ValueError(
                "`texts` must be a finite array (classes, size), or (classes, names, size) for several names a class; "
                f"received shape {values.shape}."
            )
        weight = self.add_weight(name="texts", shape=values.shape, trainable=False, initializer="zeros")
        weight.assign(values)
        return weight

    def penalty(self, context: Context) -> tf.Tensor:
        labels, points = self._points(context)
        same_class = labels[:, None] == labels[None, :]
        same = tf.constant(1 + self.shift, points.dtype)
        image = tf.where(same_class, same, tf.matmul(points, points, transpose_b=True)) / self.temperature
        text = tf.where(same_class, same, self.text_similarities(labels) + self.shift) / self.temperature
        image, text = tf.nn.log_softmax(image), tf.stop_gradient(tf.nn.log_softmax(text))
        p, q = (image, text) if self.divergence == "backward" else (text, image)
        return self.temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(p) * (p - q), axis=1))

    def text_similarities(self, labels: tf.Tensor) -> tf.Tensor:
        """Return `mean_k cos(t_k(y_i), t_k(y_j))`, `(B, B)`."""
        texts = unit(tf.gather(tf.convert_to_tensor(self.texts), labels))
        if texts.shape.rank == 2:
            return tf.matmul(texts, texts, transpose_b=True)
        rows = tf.reshape(texts, (tf.shape(labels)[0], texts.shape[1] * texts.shape[2]))
        return tf.matmul(rows, rows, transpose_b=True) / texts.shape[1]

    def _points(self, context: Context) -> tuple[tf.Tensor, tf.Tensor]:
        """Return labels and the unit vectors that language guides."""
        if self.on == "batch" or (self.on == "auto" and context.proxies is None):
            labels, points = context.need("labels", "embeddings", by=self.name)
        else:
            points, labels = context.need("proxies", "proxy_labels", by=self.name)
        labels, points = tf.reshape(labels, [-1]), tf.convert_to_tensor(points)
        if points is not context.embeddings and points.shape[0] is not None and points.shape[0] > self.max_rows:
            chosen = some_rows(points.shape[0], self.max_rows, self.draws)
            labels, points = tf.gather(labels, chosen), tf.gather(points, chosen)
        return self._with_text(labels), unit(tf.cast(points, self.compute_dtype))

    def _with_text(self, labels: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(labels, tf.int64)  # the rows of `texts` cannot be taken by smaller integers
        text = f"texts has {self.texts.shape[0]} rows, one a class, but a label is negative or larger."
        known = (labels >= 0) & (labels < self.texts.shape[0])
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known), [text])]):
            return tf.identity(labels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "divergence": self.divergence,
            "on": self.on,
            "shift": self.shift,
            "temperature": self.temperature,
            "max_rows": self.max_rows,
            "shape": list(self.texts.shape),
        }


@deprecated.renamed_arguments(names="class_names")
def top_class_names(scores: ArrayLike, labels: ArrayLike, class_names: Sequence[str], k: int = 5) -> list[list[str]]:
    """Return pseudo-names of each class: the k names that a classifier gives its images the highest mean score for.

    Args:
        scores: Logits of the classifier, `(N, M)`, of the training images.
        labels: Classes of the images, integers `(N,)` in `0 .. C - 1`, none missing.
        class_names: The classifier's M class names; only the text before a first comma is kept.
        k: Default 5.

    Returns:
        C lists of k names, best first.

    Raises:
        ValueError: If the shapes do not fit, or a class has no image.

    Example:

    >>> top_class_names([[3.0, 1.0, 2.0], [0.0, 9.0, 1.0]], [0, 1], ["cat, tom", "dog", "cow"], k=2)
    [['cat', 'cow'], ['dog', 'cow']]
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != (len(labels), len(class_names)):
        raise ValueError(
            f"`scores` must have shape (images, names) = ({len(labels)}, {len(class_names)}); received {scores.shape}."
        )
    k = checks.integer("k", k, 1, len(class_names))
    counts = np.bincount(labels)
    if not counts.all():
        raise ValueError(f"`labels` must name every class; received none of class {int(np.argmin(counts))}.")
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, labels, scores)
    best = np.argsort(-sums / counts[:, None], axis=1, kind="stable")[:, :k]
    return [[class_names[column].split(",")[0] for column in row] for row in best]


@deprecated.renamed_arguments(names="class_names")
def embed_names(
    class_names: Sequence[str] | Sequence[Sequence[str]], encoder: Any, template: str = "a photo of a {}"
) -> np.ndarray:
    """Return text embeddings of class names, as `LanguageGuidance` takes them.

    Args:
        class_names: C strings, or C lists of k strings.
        encoder: A function from a list of strings to an array `(n, e)`, or an object with such an `encode` method, as
            sentence encoders have.
        template: A text with `{}` in the place of the name. Default `"a photo of a {}"`.

    Returns:
        float32 `(C, e)`, or `(C, k, e)`.

    Example:

    >>> embed_names(["cat", "giraffe"], lambda texts: [[len(text), 1.0] for text in texts]).shape
    (2, 2)
    """
    shape = np.array(class_names, dtype=object).shape
    texts = [template.format(name) for name in np.array(class_names, dtype=object).ravel()]
    vectors = np.asarray(getattr(encoder, "encode", encoder)(texts), dtype="float32")
    return vectors.reshape(*shape, -1)

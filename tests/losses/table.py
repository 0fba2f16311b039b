"""Every loss, once: a new loss adds one row, and `test_every_loss` holds it to everything that losses must do.

A row names the loss with its options, the numpy float64 function that says what it must be, and the key of frozen
values of another library where one has the same loss (`frozen.py`). Pair and proxy losses take the same demands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tests.losses import pair_references as pair
from tests.losses import proxy_references as proxy
from tf_detreg import losses, miners
from tf_detreg.losses.pairs import MinedTriplets

CLASSES, DIM = 7, 4


@dataclass(frozen=True)
class Row:
    """A loss and what it must equal.

    Args:
        name: of the row in test reports.
        loss: the class.
        formula: `(labels, embeddings, **weights by name, **formula_options)` → the value, in plain numpy.
        options: of the loss.
        formula_options: of the formula.
        frozen: key of another library's values.
        multilabel: labels are columns of zeros and ones.
        detached: a part of the loss carries no gradient; the formula takes its embeddings as `fixed`.
        picks_first: the loss takes the first samples of each class, so that their order matters.
    """

    name: str
    loss: type
    formula: Callable
    options: dict
    formula_options: dict
    frozen: str = ""
    multilabel: bool = False
    detached: bool = False
    picks_first: bool = False

    @property
    def is_layer(self) -> bool:
        return issubclass(self.loss, keras.layers.Layer)

    @property
    def classes(self) -> int | None:
        """Number of classes that the loss knows of, if it does."""
        return self.options.get("num_classes")

    def build(self, dtype="float64", seed=1, **more):
        """The loss, with random weights if it has any."""
        if not self.is_layer:
            return self.loss(**self.options, **more)
        layer = self.loss(**self.options, **more, dtype=dtype)
        layer.build((None,), (None, DIM))
        rng = np.random.default_rng(seed)
        for weight in layer.trainable_variables:
            noise = rng.normal(size=weight.shape)
            weight.assign(1.2 + 0.05 * noise if weight.name == "beta" else noise)
        return layer

    def expected(self, labels, embeddings, weights=None, fixed=None) -> float:
        options = {**self.formula_options, **(weights or {})}
        if self.detached:
            options["fixed"] = embeddings if fixed is None else fixed
        return self.formula(np.asarray(labels), np.asarray(embeddings, np.float64), **options)

    def labels(self, classes) -> np.ndarray:
        """Class numbers; for multi-label losses columns of zeros and ones with the same matches and a few more."""
        classes = np.asarray(classes)
        if not self.multilabel:
            return classes
        one_hot = np.eye(CLASSES, dtype=np.int32)[classes]
        return np.concatenate([one_hot, (np.arange(len(classes)) % 3 == 0)[:, None]], axis=1)

    def batch(self, seed=0, size=12) -> tuple[np.ndarray, np.ndarray]:
        """Labels of five of the classes, one class with a single sample at least sometimes, and embeddings."""
        rng = np.random.default_rng(seed)
        classes = np.concatenate([[0, 0, 0, 1, 1, 2], rng.integers(0, 5, size - 6)])
        return self.labels(classes), rng.normal(size=(5, DIM))[classes] + rng.normal(size=(size, DIM))


@keras.saving.register_keras_serializable("tests")
class AllTriplets(miners.Miner):
    """Every triplet of the batch, as pytorch-metric-learning lists them for its margin loss."""

    def choose(self, pairs):
        triplets = pairs.positives[:, :, None] & pairs.negatives[:, None, :]
        return MinedTriplets(*tf.unstack(tf.cast(tf.where(triplets), tf.int32), axis=1))


def weights_of(loss) -> dict[str, np.ndarray]:
    """The trainable weights by name, as formulas take them."""
    return {weight.name: weight.numpy() for weight in getattr(loss, "trainable_variables", ())}


def measure(loss, labels, embeddings) -> tuple[tf.Tensor, np.ndarray, dict[str, np.ndarray]]:
    """Value, gradient to the embeddings, and gradients to the weights by name."""
    embeddings = tf.convert_to_tensor(embeddings)
    weights = list(getattr(loss, "trainable_variables", ()))
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    found = tape.gradient(value, [embeddings, *(weight.value for weight in weights)])
    first, *rest = (tf.convert_to_tensor(slope).numpy() for slope in found)
    return value, first, {weight.name: slope for weight, slope in zip(weights, rest, strict=True)}


def row(name, loss, formula, options=None, formula_options=None, **kwargs):
    """A pair loss; without `formula_options` the formula's defaults are the loss's."""
    return Row(name, loss, formula, options or {}, formula_options or {}, **kwargs)


def proxy_row(name, loss, formula, options=None, formula_options=None, m=1, **kwargs):
    """A proxy loss; without `formula_options` the formula takes the loss's options."""
    options = options or {}

    def by_formula(labels, embeddings, proxies, **chosen):
        return formula(labels, proxy.unit(embeddings), proxy.unit(proxies), len(proxies) // m, m=m, **chosen)

    known = {"num_classes": CLASSES, "proxies_per_class": m}
    return Row(name, loss, by_formula, {**known, **options}, formula_options or options, **kwargs)


ROWS = [
    # Pair losses.
    row("contrastive", losses.Contrastive, pair.contrastive),
    row("contrastive-1", losses.Contrastive, pair.contrastive, {"power": 1}, {"power": 1}, frozen="pml/contrastive"),
    row(
        "contrastive-cosine",
        losses.Contrastive,
        pair.contrastive,
        {"power": 1, "distance": "cosine", "negative_margin": 0.5},
        {"power": 1, "kind": "cosine", "negative_margin": 0.5},
        frozen="pml/contrastive-cosine",
    ),
    row(
        "contrastive-all",
        losses.Contrastive,
        pair.contrastive,
        {"power": 1, "distance": "cosine", "positive_margin": 0.3, "negative_margin": 0.5, "average": "all"},
        {"power": 1, "kind": "cosine", "positive_margin": 0.3, "negative_margin": 0.5, "average": "all"},
    ),
    row(
        "contrastive-anchors",
        losses.Contrastive,
        pair.contrastive,
        {"power": 1, "distance": "cosine", "negative_margin": 0.5, "average": "anchors"},
        {"power": 1, "kind": "cosine", "negative_margin": 0.5, "average": "anchors"},
    ),
    row("triplet", losses.Triplet, pair.triplet, frozen="pml/triplet"),
    row("triplet-anchors", losses.Triplet, pair.triplet, {"average": "anchors"}, {"average": "anchors"}),
    row("triplet-all", losses.Triplet, pair.triplet, {"average": "all"}, {"average": "all"}, frozen="pml/triplet-all"),
    row(
        "triplet-squared",
        losses.Triplet,
        pair.triplet,
        {"distance": "squared"},
        {"kind": "squared"},
        frozen="pml/triplet-squared",
    ),
    row(
        "triplet-semi-hard",
        losses.Triplet,
        pair.triplet,
        {"negatives": "semi_hard", "margin": 0.3},
        {"chosen": "semi_hard", "m": 0.3},
        frozen="pml/triplet-semi-hard",
    ),
    row(
        "triplet-semi-hard-cosine",
        losses.Triplet,
        pair.triplet,
        {"negatives": "semi_hard", "distance": "cosine", "average": "all"},
        {"chosen": "semi_hard", "kind": "cosine", "average": "all"},
    ),
    row(
        "triplet-hard",
        losses.Triplet,
        pair.triplet,
        {"negatives": "hard", "margin": 0.3},
        {"chosen": "hard", "m": 0.3},
        frozen="pml/triplet-hard",
    ),
    row("triplet-soft", losses.Triplet, pair.triplet, {"soft": True}, {"soft": True}, frozen="pml/triplet-soft"),
    row("triplet-swap", losses.Triplet, pair.triplet, {"swap": True}, {"swap": True}, frozen="pml/triplet-swap"),
    row(
        "triplet-direction",
        losses.Triplet,
        pair.triplet,
        {"direction": 0.492, "margin": 0.278, "average": "all"},
        {"gamma": 0.492, "m": 0.278, "average": "all"},
    ),
    row(
        "triplet-direction-cosine",
        losses.Triplet,
        pair.triplet,
        {"direction": 0.3, "distance": "cosine", "soft": True, "negatives": "semi_hard", "margin": 0.6},
        {"gamma": 0.3, "kind": "cosine", "soft": True, "chosen": "semi_hard", "m": 0.6},
    ),
    row("triplet-facenet", losses.TripletSemiHard, pair.triplet_semi_hard),
    row(
        "triplet-facenet-raw",
        losses.TripletSemiHard,
        pair.triplet_semi_hard,
        {"distance": "euclidean", "normalize": False, "margin": 1.0},
        {"kind": "euclidean", "raw": True, "m": 1.0},
        frozen="tfa/TripletSemiHard/raw/L2/margin=1.0",
    ),
    row("batch-hard", losses.TripletBatchHard, pair.triplet_batch_hard, frozen="pml/batch-hard"),
    row(
        "batch-hard-soft",
        losses.TripletBatchHard,
        pair.triplet_batch_hard,
        {"soft": True, "distance": "squared"},
        {"soft": True, "kind": "squared"},
    ),
    row("margin", losses.Margin, pair.margin),
    row("margin-classes", losses.Margin, pair.margin, {"num_classes": CLASSES, "nu": 0.1}, {"nu": 0.1}),
    row(
        "margin-triplets",
        losses.Margin,
        pair.margin,
        {"miner": AllTriplets()},
        {"triplets": True},
        frozen="pml/margin",
    ),
    row("n-pairs", losses.NPairs, pair.n_pairs, frozen="pml/n-pairs", picks_first=True),
    row("n-pairs-penalty", losses.NPairs, pair.n_pairs, {"penalty": 0.02}, {"penalty": 0.02}, picks_first=True),
    row("n-pairs-unit", losses.NPairs, pair.n_pairs, {"normalize": True}, {"normalize": True}, picks_first=True),
    row(
        "n-pairs-multilabel",
        losses.NPairsMultilabel,
        pair.n_pairs_multilabel,
        frozen="tfa/NpairsMultilabel",
        multilabel=True,
    ),
    row("lifted", losses.LiftedStructure, pair.lifted_structure, frozen="pml/lifted"),
    row(
        "lifted-raw",
        losses.LiftedStructure,
        pair.lifted_structure,
        {"normalize": False, "margin": 0.5},
        {"raw": True, "m": 0.5},
        frozen="tfa/LiftedStruct/raw/margin=0.5",
    ),
    row(
        "lifted-squared",
        losses.LiftedStructure,
        pair.lifted_structure,
        {"distance": "squared", "margin": 0.5},
        {"kind": "squared", "m": 0.5},
    ),
    row(
        "lifted-generalized",
        losses.GeneralizedLiftedStructure,
        pair.generalized_lifted_structure,
        frozen="pml/lifted-generalized",
    ),
    row("multi-similarity", losses.MultiSimilarity, pair.multi_similarity, frozen="pml/multi-similarity"),
    row(
        "multi-similarity-mined",
        losses.MultiSimilarity,
        pair.multi_similarity,
        {"beta": 40.0, "miner": miners.MultiSimilarity(0.1)},
        {"beta": 40.0, "epsilon": 0.1},
        frozen="pml/multi-similarity-mined",
    ),
    row(
        "multi-similarity-direction",
        losses.MultiSimilarity,
        pair.multi_similarity,
        {"base": 0.7, "direction": 0.3, "miner": miners.MultiSimilarity(0.1)},
        {"base": 0.7, "gamma": 0.3, "epsilon": 0.1},
    ),
    row("circle", losses.Circle, pair.circle, frozen="pml/circle", detached=True),
    row(
        "circle-face",
        losses.Circle,
        pair.circle,
        {"margin": 0.25, "scale": 16.0},
        {"m": 0.25, "scale": 16.0},
        detached=True,
    ),
    row("sup-con", losses.SupCon, pair.sup_con, frozen="pml/sup-con"),
    row("nt-xent", losses.NTXent, pair.nt_xent, frozen="pml/nt-xent"),
    row("nt-xent-warm", losses.NTXent, pair.nt_xent, {"temperature": 0.5}, {"t": 0.5}),
    row("fast-ap", losses.FastAP, pair.fast_ap, frozen="pml/fast-ap"),
    row("fast-ap-7", losses.FastAP, pair.fast_ap, {"num_bins": 7}, {"bins": 7}),
    row(
        "memory",
        losses.CrossBatchMemory,
        pair.remembered_contrastive,
        {"loss": losses.Contrastive(power=1), "memory_size": 64},
        detached=True,
    ),
    # Proxy losses.
    proxy_row("anchor", losses.ProxyAnchor, proxy.proxy_anchor, frozen="pml/ProxyAnchorLoss"),
    proxy_row("anchor-3", losses.ProxyAnchor, proxy.proxy_anchor, {"alpha": 16.0, "margin": 0.2}, m=3),
    proxy_row("anchor-direction", losses.ProxyAnchor, proxy.proxy_anchor, {"direction": 0.3}, {"gamma": 0.3}, m=2),
    proxy_row("nca", losses.ProxyNCA, proxy.proxy_nca, frozen="pml/ProxyNCALoss, own class excluded"),
    proxy_row("nca-2", losses.ProxyNCA, proxy.proxy_nca, {"scale": 8.0}, m=2),
    proxy_row("nca-direction", losses.ProxyNCA, proxy.proxy_nca, {"direction": 0.3}, {"gamma": 0.3}, m=2),
    proxy_row("nca++", losses.ProxyNCAPlusPlus, proxy.proxy_nca_plus_plus, frozen="pml/ProxyNCALoss"),
    proxy_row("nca++-2", losses.ProxyNCAPlusPlus, proxy.proxy_nca_plus_plus, {"temperature": 0.5}, m=2),
    proxy_row("softmax", losses.NormalizedSoftmax, proxy.normalized_softmax, frozen="pml/NormalizedSoftmaxLoss"),
    proxy_row("softmax-3", losses.NormalizedSoftmax, proxy.normalized_softmax, {"temperature": 0.2}, m=3),
    proxy_row("cosface", losses.CosFace, proxy.cos_face, frozen="pml/CosFaceLoss"),
    proxy_row("cosface-2", losses.CosFace, proxy.cos_face, {"scale": 8.0, "margin": 0.1}, m=2),
    proxy_row("arcface", losses.ArcFace, proxy.arc_face, {"margin": float(np.radians(28.6))}, frozen="pml/ArcFaceLoss"),
    proxy_row("arcface-gentle", losses.ArcFace, proxy.arc_face, {"scale": 8.0, "margin": 1.5}, m=2),
    proxy_row(
        "subcenter",
        losses.SubCenterArcFace,
        proxy.arc_face,
        {"margin": float(np.radians(28.6))},
        m=3,
        frozen="pml/SubCenterArcFaceLoss",
    ),
    proxy_row("softtriple", losses.SoftTriple, proxy.soft_triple, m=10),
    proxy_row(
        "softtriple-plain", losses.SoftTriple, proxy.soft_triple, {"tau": 0.0}, m=10, frozen="pml/SoftTripleLoss"
    ),
    proxy_row("softtriple-1", losses.SoftTriple, proxy.soft_triple, {"gamma": 0.5}, m=1),
    proxy_row("gml", losses.ProxyGML, proxy.proxy_gml, m=12),
    proxy_row("gml-2", losses.ProxyGML, proxy.proxy_gml, {"ratio": 0.4}, m=2),
]
ONE_A_CLASS = list({row.loss: row for row in reversed(ROWS)}.values())[::-1]

# Losses whose rows have no frozen value, and why.
NOT_FROZEN = {
    losses.CrossBatchMemory: "four batches in a row, in test_frozen_values",
    losses.ProxyGML: "no library has it",
}

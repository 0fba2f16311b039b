"""Every pair loss against the same demands. A new one adds one row to `ROWS` (proxy losses: `test_proxy_losses`)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.losses import pair_references as reference
from tf_detreg import losses, miners


@dataclass(frozen=True)
class Row:
    """A loss with its options, and the numpy float64 function that says what it must be."""

    name: str
    factory: Callable
    formula: Callable
    options: dict = field(default_factory=dict)
    formula_options: dict = field(default_factory=dict)
    multilabel: bool = False
    weights_fixed: bool = False

    def build(self, **more):
        return self.factory(**self.options, **more)

    def expected(self, labels, embeddings, fixed=None):
        options = dict(self.formula_options)
        if self.weights_fixed:
            options["fixed"] = embeddings if fixed is None else fixed
        return self.formula(labels, np.asarray(embeddings, np.float64), **options)


def row(name, factory, formula, options=None, formula_options=None, **kwargs):
    return Row(name, factory, formula, options or {}, formula_options or {}, **kwargs)


ROWS = [
    row("contrastive", losses.Contrastive, reference.contrastive),
    row("contrastive-1", losses.Contrastive, reference.contrastive, {"power": 1}, {"power": 1}),
    row(
        "contrastive-cosine",
        losses.Contrastive,
        reference.contrastive,
        {"power": 1, "distance": "cosine", "positive_margin": 0.3, "negative_margin": 0.5, "average": "all"},
        {"power": 1, "kind": "cosine", "positive_margin": 0.3, "negative_margin": 0.5, "average": "all"},
    ),
    row("triplet", losses.Triplet, reference.triplet),
    row(
        "triplet-squared",
        losses.Triplet,
        reference.triplet,
        {"distance": "squared", "margin": 0.5, "average": "all"},
        {"kind": "squared", "m": 0.5, "average": "all"},
    ),
    row(
        "triplet-semi",
        losses.Triplet,
        reference.triplet,
        {"negatives": "semi_hard", "distance": "cosine", "average": "all"},
        {"chosen": "semi_hard", "kind": "cosine", "average": "all"},
    ),
    row("triplet-hard", losses.Triplet, reference.triplet, {"negatives": "hard"}, {"chosen": "hard"}),
    row("triplet-soft", losses.Triplet, reference.triplet, {"soft": True}, {"soft": True}),
    row("triplet-swap", losses.Triplet, reference.triplet, {"swap": True}, {"swap": True}),
    row(
        "triplet-direction",
        losses.Triplet,
        reference.triplet,
        {"direction": 0.492, "margin": 0.278, "average": "all"},
        {"gamma": 0.492, "m": 0.278, "average": "all"},
    ),
    row(
        "triplet-direction-cosine",
        losses.Triplet,
        reference.triplet,
        {"direction": 0.3, "distance": "cosine", "soft": True, "negatives": "semi_hard", "margin": 0.6},
        {"gamma": 0.3, "kind": "cosine", "soft": True, "chosen": "semi_hard", "m": 0.6},
    ),
    row("triplet-facenet", losses.TripletSemiHard, reference.triplet_semi_hard),
    row(
        "triplet-facenet-raw",
        losses.TripletSemiHard,
        reference.triplet_semi_hard,
        {"distance": "euclidean", "normalize": False, "margin": 1.0},
        {"kind": "euclidean", "raw": True, "m": 1.0},
    ),
    row("batch-hard", losses.TripletBatchHard, reference.triplet_batch_hard),
    row(
        "batch-hard-soft",
        losses.TripletBatchHard,
        reference.triplet_batch_hard,
        {"soft": True, "distance": "squared"},
        {"soft": True, "kind": "squared"},
    ),
    row("margin", losses.Margin, reference.margin, {"beta": 1.25}, {"beta": 1.25}),
    row(
        "margin-nu",
        losses.Margin,
        reference.margin,
        {"num_classes": 5, "nu": 0.1, "beta": 0.875},
        {"nu": 0.1, "beta": 0.875},
    ),
    row("n-pairs", losses.NPairs, reference.n_pairs, {"penalty": 0.02}, {"penalty": 0.02}),
    row("n-pairs-unit", losses.NPairs, reference.n_pairs, {"normalize": True}, {"normalize": True}),
    row("n-pairs-multilabel", losses.NPairsMultilabel, reference.n_pairs_multilabel, multilabel=True),
    row("lifted", losses.LiftedStructure, reference.lifted_structure),
    row(
        "lifted-squared",
        losses.LiftedStructure,
        reference.lifted_structure,
        {"distance": "squared", "margin": 0.5},
        {"kind": "squared", "m": 0.5},
    ),
    row("lifted-generalized", losses.GeneralizedLiftedStructure, reference.generalized_lifted_structure),
    row("multi-similarity", losses.MultiSimilarity, reference.multi_similarity),
    row(
        "multi-similarity-mined",
        losses.MultiSimilarity,
        reference.multi_similarity,
        {"beta": 40.0, "miner": miners.MultiSimilarity(0.1)},
        {"beta": 40.0, "epsilon": 0.1},
    ),
    row(
        "multi-similarity-direction",
        losses.MultiSimilarity,
        reference.multi_similarity,
        {"base": 0.7, "direction": 0.3, "miner": miners.MultiSimilarity(0.1)},
        {"base": 0.7, "gamma": 0.3, "epsilon": 0.1},
    ),
    row("circle", losses.Circle, reference.circle, weights_fixed=True),
    row(
        "circle-face",
        losses.Circle,
        reference.circle,
        {"margin": 0.25, "scale": 16.0},
        {"m": 0.25, "scale": 16.0},
        weights_fixed=True,
    ),
    row("sup-con", losses.SupCon, reference.sup_con),
    row("nt-xent", losses.NTXent, reference.nt_xent, {"temperature": 0.2}, {"t": 0.2}),
    row("fast-ap", losses.FastAP, reference.fast_ap, {"num_bins": 7}, {"bins": 7}),
]
every_row = pytest.mark.parametrize("row", ROWS, ids=[r.name for r in ROWS])
STATELESS = [r for r in ROWS if r.factory is not losses.Margin]
stateless = pytest.mark.parametrize("row", STATELESS, ids=[r.name for r in STATELESS])


def as_labels(row, classes):
    """Class numbers, or for multi-label losses columns of zeros and ones with the same matches and a few more."""
    classes = np.asarray(classes)
    if not row.multilabel:
        return classes
    return np.concatenate([np.eye(5, dtype=np.int32)[classes], (np.arange(len(classes)) % 3 == 0)[:, None]], axis=1)


def batch(row, seed=0, size=12, dim=4):
    rng = np.random.default_rng(seed)
    classes = np.concatenate([[0, 0, 0, 1, 1, 2], rng.integers(0, 5, size - 6)])
    centres = rng.normal(size=(5, dim))
    return as_labels(row, classes), centres[classes] + rng.normal(size=(size, dim))


def build(row):
    """The loss; layers in float64, so that their gradients can be checked by finite differences."""
    return row.build(dtype="float64") if issubclass(row.factory, keras.layers.Layer) else row.build()


def value_and_gradient(loss, labels, embeddings):
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    return float(value), tape.gradient(value, embeddings).numpy()


@every_row
@pytest.mark.parametrize("seed", range(3))
def test_value_follows_the_formula(row, seed):
    labels, x = batch(row, seed)
    value, _ = value_and_gradient(build(row), labels, x)
    assert value == pytest.approx(row.expected(labels, x), rel=1e-9, abs=1e-12)
    assert value > 0


@every_row
def test_gradient_follows_finite_differences_of_the_formula(row):
    labels, x = batch(row, seed=5)
    _, gradient = value_and_gradient(build(row), labels, x)
    step, slopes = 1e-6, np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * step
            ends.append(row.expected(labels, moved, fixed=x))
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(gradient, slopes, atol=2e-6 * max(1, np.abs(slopes).max()))
    assert np.abs(gradient).max() > 1e-3


@every_row
def test_order_of_the_batch_does_not_matter(row):
    labels, x = batch(row, seed=2)
    if row.factory is losses.NPairs:  # takes the first two samples of a class: permute the classes alone
        classes = np.random.default_rng(3).permutation(5)
        order = np.argsort(classes[labels], kind="stable")
    else:
        order = np.random.default_rng(3).permutation(len(x))
    value, gradient = value_and_gradient(build(row), labels, x)
    moved_value, moved_gradient = value_and_gradient(build(row), labels[order], x[order])
    assert moved_value == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(moved_gradient, gradient[order], atol=1e-9)


same = np.tile([[0.6, 0.8, 0.0, 0.0]], (6, 1))
spread = np.random.default_rng(8).normal(size=(6, 4))
antipodal = spread[[0, 1, 2, 0, 1, 2]] * [[1], [1], [1], [-1], [-1], [-1]]
DEGENERATE = {
    "no positives": (np.arange(5), spread[:5]),
    "no negatives": (np.zeros(6, int), spread),
    "lone samples": ([0, 0, 1, 2, 2, 3], spread),
    "all equal": ([0, 0, 1, 1, 2, 2], same),
    "all equal, one class": (np.zeros(6, int), same),
    "antipodal, other classes": ([0, 1, 2, 3, 4, 0], antipodal),
    "antipodal positives": ([0, 1, 2, 0, 1, 2], antipodal),
    "duplicates across classes": ([0, 0, 1, 1, 2, 2], spread[[0, 1, 0, 2, 1, 2]]),
    "duplicate positives": ([0, 0, 1, 1, 2, 2], spread[[0, 0, 1, 1, 2, 2]]),
    "zero vectors": ([0, 0, 1, 1, 2, 2], np.zeros((6, 4))),
    "one sample": ([3], spread[:1]),
    "huge": ([0, 0, 1, 1, 2, 2], 1e4 * spread),
    "tiny": ([0, 0, 1, 1, 2, 2], 1e-3 * spread),
}


@every_row
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_degenerate_batches_are_finite(row, dtype):
    loss = row.build()
    for name, (classes, x) in DEGENERATE.items():
        value, gradient = value_and_gradient(loss, as_labels(row, classes), x.astype(dtype))
        assert np.isfinite(value), name
        assert np.isfinite(gradient).all(), name
        assert gradient.dtype == dtype


@every_row
def test_degenerate_batches_follow_the_formula(row):
    for name in ("no positives", "no negatives", "lone samples", "one sample", "antipodal, other classes"):
        classes, x = DEGENERATE[name]
        labels = as_labels(row, classes)
        assert float(build(row)(labels, x)) == pytest.approx(row.expected(labels, x), rel=1e-7, abs=1e-7), name


@every_row
def test_half_precision_inputs_are_computed_in_single(row):
    labels, x = batch(row, seed=4)
    half = x.astype(np.float16)
    value = row.build()(labels, half)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(row.expected(labels, half.astype(np.float64)), rel=1e-4)


@every_row
def test_not_a_number_is_not_hidden(row):
    labels, x = batch(row)
    x[0, 0] = np.nan
    assert np.isnan(float(build(row)(labels, x)))


@every_row
def test_wrong_labels_raise(row):
    labels, x = batch(row)
    wrong = [labels[:-1], labels[:, None, None], np.float32(labels) - 0.5, labels - 1]
    if not row.multilabel:
        wrong += [labels.astype(np.float32), np.eye(5, dtype=int)[labels]]
    for bad in wrong:
        with pytest.raises(ValueError, match="labels must"):
            row.build()(bad, x)


@stateless
def test_compile_fit_and_reload(row, tmp_path):
    labels, x = batch(row, size=32)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=row.build())
    before = float(row.build()(labels, model(x)))
    history = model.fit(x, labels, batch_size=32, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert history[0] == pytest.approx(before, rel=1e-4)
    assert history[1] != history[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, labels, batch_size=32, verbose=0) == pytest.approx(
        model.evaluate(x, labels, batch_size=32, verbose=0), rel=1e-6
    )
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="labels must"):
        model.fit(x, labels - 1, batch_size=32, verbose=0)


@stateless
def test_reductions_and_sample_weights(row):
    labels, x = batch(row)
    each = row.build(reduction=None)(labels, x)
    assert each.shape == (len(x),)
    weights = np.linspace(0, 2, len(x))
    assert float(row.build()(labels, x)) == pytest.approx(float(tf.reduce_mean(each)))
    assert float(row.build(reduction="sum")(labels, x)) == pytest.approx(float(tf.reduce_sum(each)))
    weighted = float(row.build()(labels, x, sample_weight=weights))
    assert weighted == pytest.approx(float(np.mean(each * weights)))
    mean = float(row.build(reduction="mean_with_sample_weight")(labels, x, sample_weight=weights))
    assert mean == pytest.approx(float(np.sum(each * weights) / weights.sum()))


@every_row
def test_configuration_round_trip(row):
    loss = row.build()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    labels, x = batch(row)
    assert float(again(labels, x)) == pytest.approx(float(loss(labels, x)))
    for key, value in row.options.items():
        if key != "miner":
            assert again.get_config()[key] == value

"""Every proxy loss against the same demands. A new one adds one row to `CASES`."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.losses import proxy_references as reference
from tf_detreg import losses
from tf_detreg.losses.proxy_direction import direction_cosines

CLASSES, DIM, BATCH = 7, 5, 12


class Case(NamedTuple):
    name: str
    layer: type
    options: dict
    formula: object
    formula_options: dict


def case(name, layer, formula, options=None, m=1, formula_options=None):
    options = options or {}
    return Case(name, layer, {"proxies_per_class": m, **options}, formula, {"m": m, **(formula_options or options)})


CASES = [
    case("anchor", losses.ProxyAnchor, reference.proxy_anchor),
    case("anchor-3", losses.ProxyAnchor, reference.proxy_anchor, {"alpha": 16.0, "margin": 0.2}, m=3),
    case("anchor-direction", losses.ProxyAnchor, reference.proxy_anchor, {"direction": 0.3}, 2, {"gamma": 0.3}),
    case("nca", losses.ProxyNCA, reference.proxy_nca),
    case("nca-2", losses.ProxyNCA, reference.proxy_nca, {"scale": 8.0}, m=2),
    case("nca-direction", losses.ProxyNCA, reference.proxy_nca, {"direction": 0.3}, 2, {"gamma": 0.3}),
    case("nca++", losses.ProxyNCAPlusPlus, reference.proxy_nca_plus_plus),
    case("nca++-2", losses.ProxyNCAPlusPlus, reference.proxy_nca_plus_plus, {"temperature": 0.5}, m=2),
    case("softmax", losses.NormalizedSoftmax, reference.normalized_softmax),
    case("softmax-3", losses.NormalizedSoftmax, reference.normalized_softmax, {"temperature": 0.2}, m=3),
    case("cosface", losses.CosFace, reference.cos_face),
    case("cosface-2", losses.CosFace, reference.cos_face, {"scale": 8.0, "margin": 0.1}, m=2),
    case("arcface", losses.ArcFace, reference.arc_face),
    case("arcface-gentle", losses.ArcFace, reference.arc_face, {"scale": 8.0, "margin": 1.5}, m=2),
    case("subcenter", losses.SubCenterArcFace, reference.arc_face, m=3),
    case("softtriple", losses.SoftTriple, reference.soft_triple, m=10),
    case("softtriple-1", losses.SoftTriple, reference.soft_triple, {"gamma": 0.5}, m=1),
    case("gml", losses.ProxyGML, reference.proxy_gml, m=12),
    case("gml-2", losses.ProxyGML, reference.proxy_gml, {"ratio": 0.4}, m=2),
]
every_case = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])


def batch(seed=0, classes=CLASSES - 2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, BATCH), rng.normal(size=(BATCH, DIM))


def built(case, dtype="float64"):
    layer = case.layer(CLASSES, DIM, dtype=dtype, **case.options)
    layer.build()
    layer.proxies.assign(np.random.default_rng(1).normal(size=layer.proxies.shape))
    return layer


def value_and_gradients(layer, labels, embeddings):
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = layer(labels, embeddings)
    return value, *tape.gradient(value, [embeddings, layer.proxies.value])


def by_formula(case, labels, embeddings, proxies):
    return case.formula(labels, reference.unit(embeddings), reference.unit(proxies), CLASSES, **case.formula_options)


@every_case
def test_value_and_gradient_follow_the_formula(case):
    layer, (labels, x) = built(case), batch()
    proxies = layer.proxies.numpy()
    value, dx, dp = value_and_gradients(layer, labels, x)
    np.testing.assert_allclose(value, by_formula(case, labels, x, proxies), rtol=1e-9)
    rng = np.random.default_rng(2)
    for _ in range(3):
        vx, vp = rng.normal(size=x.shape), rng.normal(size=proxies.shape)
        h = 1e-6
        ahead = by_formula(case, labels, x + h * vx, proxies + h * vp)
        behind = by_formula(case, labels, x - h * vx, proxies - h * vp)
        slope = np.sum(dx * vx) + np.sum(dp * vp)
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)


@every_case
def test_order_of_the_batch_and_length_of_the_vectors_do_not_matter(case):
    layer, (labels, x) = built(case), batch()
    order = np.random.default_rng(3).permutation(BATCH)
    value = float(layer(labels, x))
    np.testing.assert_allclose(layer(labels[order, None], 3 * x[order]), value, rtol=1e-9)
    layer.proxies.assign(layer.proxies.numpy() * 0.2)
    np.testing.assert_allclose(layer(labels, x), value, rtol=1e-9)


def degenerate_batches():
    labels, x = batch()
    opposite = np.concatenate([x[:1], -x[:1]])
    yield "one sample", labels[:1], x[:1]
    yield "one class", np.zeros(BATCH, int), x
    yield "all different", np.arange(CLASSES), x[:CLASSES]
    yield "all equal", labels, np.ones_like(x)
    yield "all zero", labels, np.zeros_like(x)
    yield "antipodal", np.array([0, 0]), opposite
    yield "duplicates", np.array([0, 1, 0, 1]), np.repeat(x[:2], 2, axis=0)
    yield "tiny", labels, 1e-20 * x
    yield "huge", labels, 1e15 * x
    yield "half", labels, x.astype("float16")


@every_case
@pytest.mark.parametrize("what, labels, x", list(degenerate_batches()), ids=[b[0] for b in degenerate_batches()])
def test_degenerate_batches_have_finite_values_and_gradients(case, what, labels, x):
    layer = built(case, "float32")
    x = x if x.dtype == np.float16 else x.astype("float32")
    for proxies in (layer.proxies.numpy(), np.tile(x[:1], (layer.proxies.shape[0], 1)), np.zeros(layer.proxies.shape)):
        layer.proxies.assign(proxies)
        for result in value_and_gradients(layer, labels, x):
            assert np.isfinite(result).all(), what


@every_case
def test_embedding_on_its_own_proxy_is_finite(case):
    layer = built(case, "float32")
    labels = np.arange(CLASSES)
    x = layer.proxies.numpy()[:: layer.proxies_per_class]
    for embeddings in (x, -x):
        for result in value_and_gradients(layer, labels, embeddings):
            assert np.isfinite(result).all()


@every_case
def test_half_precision_equals_single_on_the_same_numbers(case):
    layer, (labels, x) = built(case, "float32"), batch()
    half = x.astype("float16")
    assert layer(labels, half).dtype == tf.float32
    np.testing.assert_allclose(layer(labels, half), layer(labels, half.astype("float32")), rtol=1e-6)


@every_case
def test_float32_stays_close_to_float64(case):
    labels, x = batch()
    np.testing.assert_allclose(built(case, "float32")(labels, x), built(case)(labels, x), rtol=2e-4)


BAD_LABELS = {
    "negative": (np.full(BATCH, -1), r"0 \.\. 6"),
    "too large": (np.full(BATCH, CLASSES), r"0 \.\. 6"),
    "float": (np.zeros(BATCH), "integers"),
    "too few": (np.zeros(BATCH - 1, int), "shape"),
    "one-hot": (np.eye(CLASSES, dtype=int)[np.zeros(BATCH, int)], "shape"),
}


@every_case
@pytest.mark.parametrize("what", BAD_LABELS)
def test_wrong_labels_raise_eagerly_and_in_a_graph(case, what):
    layer, (_, x) = built(case), batch()
    labels, message = BAD_LABELS[what]
    with pytest.raises(ValueError, match=message):
        layer(labels, x)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        tf.function(lambda labels, x: layer(labels, x))(labels, x)


class Classifier(keras.Model):
    """The least model that trains with a proxy loss."""

    def __init__(self, loss):
        super().__init__()
        self.embedder, self.proxy_loss = keras.layers.Dense(DIM), loss

    def build(self, input_shape):
        self.embedder.build(input_shape)
        self.proxy_loss.build(None, (None, DIM))

    def call(self, x):
        return self.embedder(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.proxy_loss(y, y_pred)


@every_case
def test_fit_learns_and_stops_at_wrong_labels(case):
    keras.utils.set_random_seed(0)
    labels, x = batch()
    x = x + 4 * np.eye(CLASSES)[labels][:, :DIM]
    model = Classifier(case.layer(CLASSES, **case.options))
    model.compile(optimizer=keras.optimizers.Adam(0.02), jit_compile=False)
    losses_seen = model.fit(x, labels, batch_size=BATCH, epochs=12, verbose=0).history["loss"]
    assert losses_seen[-1] < losses_seen[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0 \.\. 6"):
        model.fit(x, labels + CLASSES, batch_size=BATCH, verbose=0)


@every_case
def test_saves_and_loads(case, tmp_path):
    labels, x = batch()
    model = Saved(case.layer(CLASSES, dtype="float32", **case.options))
    value = float(model([labels, x]))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.proxy_loss.get_config() == model.proxy_loss.get_config()
    np.testing.assert_allclose(loaded([labels, x]), value, rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Saved(keras.Model):
    def __init__(self, proxy_loss, **kwargs):
        super().__init__(**kwargs)
        self.proxy_loss = proxy_loss

    def call(self, inputs):
        return self.proxy_loss(tf.cast(inputs[0], tf.int32), inputs[1])

    def get_config(self):
        return {"proxy_loss": keras.saving.serialize_keras_object(self.proxy_loss)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["proxy_loss"]))


@every_case
def test_computes_in_float32_under_mixed_precision(case):
    labels, x = batch()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = case.layer(CLASSES, **case.options)
        assert layer(labels, x).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(policy)
    assert layer.proxies.dtype == "float32"


GOLDEN = Path(__file__).parents[1] / "data" / "pml_proxy_golden.npz"
# Name in the file → the same loss here.
SAME_AS_PML = {
    "ProxyAnchorLoss": (losses.ProxyAnchor, {}),
    "ProxyNCALoss": (losses.ProxyNCAPlusPlus, {"temperature": 1 / 9}),
    "NormalizedSoftmaxLoss": (losses.NormalizedSoftmax, {}),
    "CosFaceLoss": (losses.CosFace, {}),
    "ArcFaceLoss": (losses.ArcFace, {"margin": np.radians(28.6)}),
    "SubCenterArcFaceLoss": (losses.SubCenterArcFace, {"margin": np.radians(28.6)}),
    "SoftTripleLoss": (losses.SoftTriple, {"tau": 0.0}),
}


@pytest.mark.parametrize("name", SAME_AS_PML)
@pytest.mark.parametrize("batch_name", ["random", "trained", "one_class"])
def test_equals_pytorch_metric_learning(name, batch_name):
    layer_class, options = SAME_AS_PML[name]
    with np.load(GOLDEN) as golden:
        labels, x = golden[f"{batch_name}/labels"], golden[f"{batch_name}/embeddings"]
        proxies, value, dx, dp = (golden[f"{batch_name}/{name}/{part}"] for part in ("proxies", "value", "dx", "dp"))
    layer = layer_class(int(golden_classes(proxies, options, layer_class)), x.shape[1], dtype="float64", **options)
    layer.build()
    layer.proxies.assign(proxies)
    ours = value_and_gradients(layer, labels, x)
    for got, wanted in zip(ours, (value, dx, dp), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


def golden_classes(proxies, options, layer_class):
    return len(proxies) / layer_class(2, **options).proxies_per_class


def test_tiny_alpha_and_huge_alpha_of_proxy_anchor_are_exact():
    labels, x = batch()
    for alpha in (1e-3, 300.0):
        layer = built(Case("", losses.ProxyAnchor, {"alpha": alpha}, None, {}))
        proxies = reference.unit(layer.proxies.numpy())
        wanted = reference.proxy_anchor(labels, reference.unit(x), proxies, CLASSES, alpha=alpha)
        np.testing.assert_allclose(layer(labels, x), wanted, rtol=1e-9)
        assert np.isfinite(losses.ProxyAnchor(CLASSES, alpha=alpha)(labels, x))


@pytest.mark.parametrize(
    "layer, options, name",
    [
        (losses.ProxyAnchor, {"num_classes": 0}, "num_classes"),
        (losses.ProxyNCA, {"num_classes": 1}, "num_classes"),
        (losses.ProxyGML, {"num_classes": 1}, "num_classes"),
        (losses.ProxyAnchor, {"num_classes": 3, "proxies_per_class": 0}, "proxies_per_class"),
        (losses.ProxyAnchor, {"num_classes": 3, "alpha": 0}, "alpha"),
        (losses.ArcFace, {"num_classes": 3, "margin": 28.6}, "radians"),
        (losses.CosFace, {"num_classes": 3, "scale": -1}, "scale"),
        (losses.NormalizedSoftmax, {"num_classes": 3, "temperature": 0}, "temperature"),
        (losses.ProxyGML, {"num_classes": 3, "ratio": 0}, "ratio"),
    ],
)
def test_wrong_arguments_are_named(layer, options, name):
    with pytest.raises(ValueError, match=name):
        layer(**options)


def test_size_of_the_embeddings_is_checked():
    with pytest.raises(ValueError, match="dim=5"):
        losses.ProxyAnchor(CLASSES, DIM)(np.zeros(2, int), np.ones((2, DIM + 1)))


def test_arc_face_falls_all_the_way_to_the_opposite_side():
    """The target logit must decrease with the angle on the whole half circle, also beyond pi - margin."""
    angles = np.linspace(0.01, np.pi - 0.01, 200)
    target = losses.ArcFace(2, margin=0.5).widened(tf.constant(np.cos(angles)))
    assert (np.diff(target) < 0).all()


def test_a_hundred_thousand_classes_fit():
    """No (B, C, dim) tensor (3.3 GB here): 8 x 100,000 similarities are enough."""
    rng = np.random.default_rng(0)
    layer = losses.ProxyAnchor(100_000, 8)
    x = rng.normal(size=(8, 8)).astype("float32")
    for result in value_and_gradients(layer, rng.integers(0, 100_000, 8), x):
        assert np.isfinite(result).all()


def test_direction_of_coincident_and_antipodal_points_is_finite_and_bounded():
    q = tf.constant([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    z = tf.constant([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    own = tf.constant([[[0, 0]], [[1, 0]], [[2, 0]]])
    cosines = direction_cosines(tf.matmul(z, q, transpose_b=True), own, q).numpy()
    assert np.isfinite(cosines).all() and (np.abs(cosines) < 1 + 1e-5).all()
    # From (0, 1): towards (1, 0) and (-1, 0) is a right angle, towards (1, 0) itself none.
    np.testing.assert_allclose(cosines[2, :3], [1, 0, 1], atol=1e-6)


def test_direction_weakens_the_push_of_a_proxy_on_the_own_side():
    """A foreign proxy behind the own one pushes less with direction."""

    def push(direction):
        loss = losses.ProxyAnchor(2, 2, direction=direction, dtype="float64")
        loss.build()
        loss.proxies.assign([[1.0, 0.0], [0.9, -0.436]])
        _, _, dp = value_and_gradients(loss, np.array([0]), np.array([[0.8, 0.6]]))
        return np.linalg.norm(dp[1])

    assert push(0.02) < push(0.0)

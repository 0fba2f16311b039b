"""Measured stretches against maps whose stretches are known."""

import contextlib
import doctest
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.datasets.trees import picture
from tests.heads.table import features, jacobian, make
from tf_detreg import datasets, heads, losses, training
from tf_detreg.analysis import jacobians, lipschitz, memory, samples, secants
from tf_detreg.analysis.memory import BoundedMap


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_norms_of_a_known_matrix(scale):
    matrix = scale * np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    function = lambda x: tf.matmul(x, matrix)  # noqa: E731
    x = tf.random.normal((4, 5))
    exact = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(lipschitz.spectral_norm(function, x, 50), exact[0], rtol=1e-4)
    np.testing.assert_allclose(lipschitz.singular_values(function, x), np.tile(exact, (4, 1)), rtol=1e-4)
    np.testing.assert_allclose(lipschitz.frobenius_norm(function, x, 400), np.linalg.norm(matrix), rtol=0.05)


def test_frobenius_norm_of_orthogonal_columns_needs_one_direction():
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    scaled = rotation[:, :4] * [1.0, 2.0, 3.0, 4.0]
    # f(x) = scaled·x, so that the columns of the Jacobian are those of `scaled`.
    found = lipschitz.frobenius_norm(lambda x: tf.matmul(x, scaled, transpose_b=True), features(3, 4), probes=1)
    np.testing.assert_allclose(found, np.sqrt(30.0), rtol=1e-12)


def test_an_empty_flow_is_an_isometry():
    head = make("linear", dim=5, dtype="float32")
    function, z = (lambda z: head.flow(z)[0]), features(4, 5, dtype="float32")
    np.testing.assert_allclose(lipschitz.spectral_norm(function, z), 1.0, rtol=1e-6)
    np.testing.assert_allclose(lipschitz.frobenius_norm(function, z), np.sqrt(5.0), rtol=1e-6)
    assert lipschitz.log_determinant(head, z) is None


def test_secant_ratios_leave_out_pairs_of_one_point():
    a = tf.constant([[0.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
    b = tf.constant([[0.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
    np.testing.assert_allclose(lipschitz.secant_ratios(lambda x: 3.0 * x, a, b), [3.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["real_nvp", "nice", "glow", "ffjord"])
def test_head_against_its_full_jacobian(name):
    head = make(name, dtype="float32", **({"steps": 4} if name == "ffjord" else {}))
    x = features(9, dtype="float32")
    part = lipschitz.measure(head, x, np.arange(9) % 3, iterations=100).parts["head"]
    # `measure` draws an order of its own: compare as sets.
    full = jacobian(lambda z: head.flow(z)[0], head.project(x)).numpy()
    np.testing.assert_allclose(np.sort(part.spectral), np.sort(np.linalg.norm(full, 2, axis=(1, 2))), rtol=1e-3)
    np.testing.assert_allclose(np.sort(part.log_det), np.sort(np.linalg.slogdet(full)[1]), atol=1e-4)
    assert part.spectrum.shape == (8, 5)


def embedder():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4, 4, 3)), keras.layers.Conv2D(6, 3, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([*layers, heads.Dueling(heads.RealNVP(5, depth=2, hidden=8, penalty=0.1))])


@pytest.fixture(scope="module")
def known():
    """An embedder, twelve images of four classes, and what is measured of it on them."""
    images = np.random.default_rng(0).uniform(0, 255, (12, 4, 4, 3)).astype("float32")
    model = embedder()
    return model, images, lipschitz.measure(model, images, np.arange(12) % 4)


def test_whole_embedder_report(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (12, 4, 4, 3)).astype("float32")
    labels = np.arange(12) % 4
    report = lipschitz.measure(embedder(), images, labels, unseen=images + 1, unseen_labels=labels, samples=6)
    assert set(report.parts) == {"head", "backbone", "embedder"}
    for part in report.parts.values():
        assert set(part.secants) == set(lipschitz.POPULATIONS)
        assert part.spectral.shape == part.frobenius.shape == (6,)
        assert all(np.isfinite(ratios).all() and len(ratios) for ratios in part.secants.values())
    assert json.loads(report.to_json())["head"]["spectral norm"]["samples"] == 6
    table = report.to_markdown()
    assert "| secant, unseen classes |" in table and "| log det |" in table
    report.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_metric_model_is_measured_as_its_embedder(known):
    plain, images, wanted = known
    found = lipschitz.measure(training.MetricModel(plain, losses.SupCon()), images, np.arange(12) % 4)
    np.testing.assert_array_equal(found.parts["embedder"].spectral, wanted.parts["embedder"].spectral)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_an_embedder_in_half_precision_measures_alike(known, policy):
    plain, images, wanted = known
    keras.config.set_dtype_policy(policy)
    try:
        half = embedder()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(plain.get_weights())
    found = lipschitz.measure(half, images, np.arange(12) % 4)
    for name, part in wanted.parts.items():
        np.testing.assert_allclose(found.parts[name].spectral, part.spectral, rtol=0.05)
        np.testing.assert_allclose(found.parts[name].spectrum[:, 0], part.spectrum[:, 0], rtol=0.05)
        for population, ratios in part.secants.items():
            assert np.median(found.parts[name].secants[population]) == pytest.approx(np.median(ratios), rel=0.1)


WORK = ("Jacobians", "singular values", "pairs")


def test_many_samples_are_measured_in_parts_that_a_bar_counts(monkeypatch):
    bars = {}

    @contextlib.contextmanager
    def ticker(title, total, show):
        done = []
        yield done.append
        bars.setdefault(title, []).append((total, sum(done), len(done), show))

    for module in (lipschitz, jacobians, secants, samples):
        monkeypatch.setattr(module, "ticker", ticker)
    images = np.random.default_rng(0).uniform(0, 255, (300, 4, 4, 3)).astype("float32")
    labels = np.arange(300) % 4
    whole = datasets.ImageSet(labels, tuple("abcd"), images=images.astype("uint8"))
    report = lipschitz.measure(embedder(), whole, samples=300, iterations=2, probes=3, progress=None)
    assert report.parts["head"].spectral.shape == (300,)
    assert set(bars) == {"Reading images", "Features", *(f"{part}: {what}" for part in report.parts for what in WORK)}
    assert bars["head: Jacobians"] == [(1500, 1500, 10, None)]
    assert bars["Reading images"] == [(300, 300, 3, None)]


@pytest.mark.parametrize(
    "measured", [lipschitz.spectral_norm, lipschitz.frobenius_norm, lipschitz.singular_values], ids=lambda f: f.__name__
)
def test_a_small_memory_gives_the_same_numbers(measured):
    head = make("real_nvp", dtype="float32")
    function, z = (lambda z: head.flow(z)[0]), features(9, 5, dtype="float32")
    whole = measured(function, z)
    np.testing.assert_allclose(measured(function, z, memory=20_000 / 2**30), whole, rtol=1e-4)
    assert len(whole) == 9


def a_deep_net(size: int):
    """Its layers' values take 17 × 4 × 8 bytes a pixel, a hundred times what the image does."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(8)]
    return keras.Sequential([keras.Input((size, size, 3)), *layers, keras.layers.GlobalAveragePooling2D()])


def test_what_a_step_holds_is_known_before_it_runs():
    net = a_deep_net(32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = net(x, training=False)
        return tape.gradient(y, x)

    values, one = 32 * 32 * 8 * 4, tf.zeros((1, 32, 32, 3))
    forward = BoundedMap(lambda x: net(x, training=False), one).needs * 2**30
    backward = BoundedMap(gradient, one).needs * 2**30
    # Forwards two layers' values are needed at once, backwards those of all eight.
    assert 2 * values <= forward <= 4 * values and 8 * values <= backward <= 20 * values
    assert BoundedMap(gradient, one, memory=5.5 * backward / 2**30).rows == 5
    assert BoundedMap(gradient, one, memory=1e6).rows == 256
    tight = BoundedMap(gradient, one, memory=0.9 * backward / 2**30)
    assert tight.rows == 1 and not tight.fits


def test_every_step_of_a_measurement_fits_into_the_memory(monkeypatch):
    made = []

    class Watched(BoundedMap):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.most = 0
            made.append((self, options["memory"]))

        def __call__(self, *rows):
            self.most = max(self.most, len(rows[0]))
            return super().__call__(*rows)

    for module in (memory, jacobians):
        monkeypatch.setattr(module, "BoundedMap", Watched)
    net = keras.Sequential([keras.Input((32, 32, 3)), a_deep_net(32), heads.Linear(4)])
    images = np.random.default_rng(0).uniform(0, 255, (40, 32, 32, 3)).astype("float32")
    limit = 2 * 20 * 32 * 32 * 8 * 4 / 2**30
    report = lipschitz.measure(net, images, np.arange(40) % 4, iterations=2, probes=2, pairs=30, memory=limit)
    assert len(made) > 8 and all(bound.most * bound.needs <= given for bound, given in made)
    # The images themselves take a quarter at most: 26 of 40 here.
    assert len(report.parts["embedder"].spectral) == limit * 2**28 // (32 * 32 * 3 * 4)


def test_derivatives_that_do_not_fit_are_left_out_with_a_note(caplog, tmp_path):
    net = keras.Sequential([keras.Input((32, 32, 3)), a_deep_net(32), heads.Linear(4)])
    images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
    report = lipschitz.measure(net, images, np.arange(8) % 2, memory=5 * 32 * 32 * 8 * 4 / 2**30)
    assert "more than `memory`=" in caplog.text
    part = report.parts["embedder"]
    assert len(part.spectral) == 0 and part.spectrum is None and len(part.secants["within class"])
    assert "spectral norm" not in report.to_dict()["embedder"]
    report.plot(tmp_path / "plot.png")


def test_a_large_class_is_not_read_whole(monkeypatch):
    labels = np.repeat([0, 1], [5000, 50])
    whole = datasets.ImageSet(labels, ("a", "b"), images=np.zeros((5050, 2, 2, 3), np.uint8))
    images, labels = samples.take(whole, None, np.random.default_rng(0), 16, "labels", False)
    assert len(images) == 32 and set(labels) == {0, 1}


def test_pairs_of_many_samples_fit_into_memory():
    labels = np.repeat([5, 1, 3], [40_000, 2, 60_000])
    for kind, (first, second) in zip(
        (True, False), secants.pairs_of_rows(labels, 50, np.random.default_rng(0)), strict=True
    ):
        assert len(first) == 50 and np.all((labels[first] == labels[second]) == kind)
    assert set(samples.rows_of_each_class(np.arange(6) % 3, 4) % 3) == {0, 1}


def test_secants_of_a_scaling():
    class Doubling(heads.Linear):
        def flow(self, z, training=None):
            return 2.0 * z, []

    head = Doubling(4, projection="never")
    head.build((None, 4))
    part = lipschitz.measure(head, features(8, 4, dtype="float32"), np.arange(8) % 2).parts["head"]
    for name in ("within class", "between classes", "interpolated"):
        np.testing.assert_allclose(part.secants[name], 2.0, rtol=1e-4)
    assert part.log_det is None


def test_labels_stay_with_their_pictures_when_a_file_cannot_be_read(tmp_path):
    for name, shade in (("a", 0), ("b", 100), ("c", 200)):
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", shade)
    whole = datasets.folder(tmp_path, image_size=4, validation=0.0, test=0.0).train
    (tmp_path / "a" / "0.png").write_text("no picture any more")
    images, labels = samples.take(whole, None, np.random.default_rng(0), 100, "labels", False)
    assert len(images) == len(labels) == 8
    np.testing.assert_array_equal(images[:, 0, 0, 0], 100.0 * labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "`labels` must be given"),
        (np.zeros(3), "one per sample"),
        (np.zeros(8), "two classes"),
        (np.arange(8), "two s"),
    ],
)
def test_refusals(labels, message):
    with pytest.raises(ValueError, match=message):
        lipschitz.measure(make("nice", dtype="float32"), features(8, dtype="float32"), labels)


def test_example():
    for module in (lipschitz, memory):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed


def test_pairs_are_of_each_population_and_of_unseen_classes_where_there_are_any():
    class Doubling:
        def parts(self, x):
            return [x[:3], x[3:]]

        def __call__(self, x):
            return 2 * x

    rng = np.random.default_rng(0)
    seen, unseen = ((tf.constant(rng.normal(size=(8, 4)), tf.float64), np.arange(8) % 2) for _ in range(2))
    for points, counts in (
        ([seen], {"within class": 6, "between classes": 6, "interpolated": 6}),
        ([seen, unseen], {"within class": 6, "between classes": 6, "interpolated": 6, "unseen classes": 6}),
    ):
        found = secants.secants_of_populations(Doubling(), points, 6, 0.1, np.random.default_rng(0), "t", False)
        assert {name: len(ratios) for name, ratios in found.items()} == counts
        for ratios in found.values():
            np.testing.assert_allclose(ratios, 2.0)
    found = secants.secants_of_populations(Doubling(), [seen, unseen], 1, 0.1, np.random.default_rng(0), "t", False)
    assert len(found["unseen classes"]) == 2

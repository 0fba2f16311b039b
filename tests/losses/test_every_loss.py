"""Every loss of the table against the same demands, pair and proxy losses alike. A new loss adds one row there."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.losses.frozen import frozen_values
from tests.losses.table import CLASSES, DIM, NOT_FROZEN, ONE_A_CLASS, ROWS, measure, weights_of
from tf_detreg import heads, losses
from tf_detreg.training import MetricModel

FROZEN = [row for row in ROWS if row.frozen]
STATELESS = [row for row in ROWS if not row.is_layer]


def rows(chosen):
    return pytest.mark.parametrize("row", chosen, ids=[row.name for row in chosen])


every_row, every_class = rows(ROWS), rows(ONE_A_CLASS)
# One pair loss, one with a weight of its class, one layer: labels of another shape or type mean another trace or
# another compilation, which takes most of a test's time, and is the same code for all.
COMPILED_AGAIN = [row for row in ONE_A_CLASS if row.loss in (losses.Contrastive, losses.Margin, losses.ProxyAnchor)]


def test_every_loss_has_a_row_and_an_independent_value():
    public = {getattr(losses, name) for name in losses.__all__} - {losses.PairLoss, losses.ProxyLoss}
    classes = {found for found in public if inspect.isclass(found)}
    assert {row.loss for row in ROWS} == classes
    assert {row.loss for row in FROZEN} == classes - set(NOT_FROZEN)
    assert len({row.name for row in ROWS}) == len(ROWS)


# What the value is.


@every_row
def test_value_follows_the_formula(row):
    for seed in range(3):
        loss, (labels, x) = row.build(seed=seed), row.batch(seed)
        value, _, _ = measure(loss, labels, x)
        assert value.dtype == tf.float64
        assert float(value) == pytest.approx(row.expected(labels, x, weights_of(loss)), rel=1e-9, abs=1e-12)
        assert float(value) != 0


@every_row
def test_gradients_follow_finite_differences_of_the_formula(row):
    """Along random directions of the embeddings and of all weights at once."""
    (labels, x), loss = row.batch(seed=5), row.build()
    weights = weights_of(loss)
    _, slope, slopes = measure(loss, labels, x)
    rng, step = np.random.default_rng(2), 1e-6
    for _ in range(6):
        away = rng.normal(size=x.shape)
        moves = {name: rng.normal(size=weight.shape) for name, weight in weights.items()}
        ends = [
            row.expected(labels, x + h * away, {name: w + h * moves[name] for name, w in weights.items()}, fixed=x)
            for h in (step, -step)
        ]
        along = np.sum(slope * away) + sum(np.sum(slopes[name] * move) for name, move in moves.items())
        assert along == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=2e-6)
    for gradient in (slope, *slopes.values()):
        assert np.abs(gradient).max() > 1e-3


@rows(FROZEN)
def test_equals_another_library(row):
    for case in frozen_values(row):
        options = dict(row.options)
        if case.proxies is not None:
            options["num_classes"] = len(case.proxies) // options["proxies_per_class"]
        loss = row.loss(**options, **({"dtype": "float64"} if row.is_layer else {}))
        if case.proxies is not None:
            loss.build((None,), case.embeddings.shape)
            loss.proxies.assign(case.proxies)
        if case.references is not None:
            each = loss.against(case.labels, case.embeddings, case.labels, case.references)
            assert float(tf.reduce_mean(each)) == pytest.approx(case.value, rel=case.tolerance)
            continue
        value, slope, slopes = measure(loss, case.labels, case.embeddings)
        assert float(value) == pytest.approx(case.value, rel=case.tolerance)
        atol = case.tolerance * max(1, np.abs(case.gradient).max())
        np.testing.assert_allclose(slope, case.gradient, rtol=case.tolerance, atol=atol)
        if case.proxies is not None:
            np.testing.assert_allclose(slopes["proxies"], case.proxy_gradient, rtol=1e-5, atol=1e-7)


@every_row
def test_order_of_the_batch_does_not_matter(row):
    labels, x = row.batch(seed=2)
    rng = np.random.default_rng(3)
    order = rng.permutation(len(x))
    if row.picks_first:  # the classes change places, the samples of a class do not
        order = np.argsort(rng.permutation(CLASSES)[labels], kind="stable")
    value, slope, _ = measure(row.build(), labels, x)
    moved_value, moved_slope, _ = measure(row.build(), labels[order], x[order])
    assert float(moved_value) == pytest.approx(float(value), rel=1e-9)
    np.testing.assert_allclose(moved_slope, slope[order], atol=1e-9)


@every_row
def test_labels_as_a_column_and_as_a_list(row):
    labels, x = row.batch()
    value = float(row.build()(labels, x))
    assert float(row.build()(labels.tolist(), x.tolist())) == pytest.approx(value, rel=1e-5)
    if not row.multilabel:
        assert float(row.build()(labels[:, None], x)) == value
        assert float(row.build()(labels.astype("uint8"), x)) == value


@every_class
def test_compiled_by_xla_it_computes_the_same_and_wrong_labels_give_nan(row):
    """XLA cannot raise. One compilation serves both, which takes most of the time."""
    numbers, x = row.batch(seed=1)
    labels, x = tf.constant(numbers), tf.constant(x, tf.float32)
    loss = row.build("float32")

    def value_and_gradient(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    value, slope = value_and_gradient(labels, x)
    compiled = tf.function(value_and_gradient, jit_compile=True)
    compiled_value, compiled_slope = compiled(labels, x)
    np.testing.assert_allclose(compiled_value, value, rtol=1e-5)
    np.testing.assert_allclose(compiled_slope, slope, rtol=1e-4, atol=1e-5)
    kinds = {"negative", "beyond int32", "too large"} | ({"soft", "two ones"} if row in COMPILED_AGAIN else set())
    for what, bad in wrong_labels(row, numbers):
        if what in kinds and not row.multilabel:
            assert np.isnan(compiled(tf.constant(bad), x)[0]), what


# Where formulas break.

same = np.tile([[0.6, 0.8, 0.0, 0.0]], (6, 1))
spread = np.random.default_rng(8).normal(size=(6, DIM))
antipodal = spread[[0, 1, 2, 0, 1, 2]] * [[1], [1], [1], [-1], [-1], [-1]]
DEGENERATE = {
    "no positives": (np.arange(5), spread[:5]),
    "no negatives": (np.zeros(6, int), spread),
    "single samples": ([0, 0, 1, 2, 2, 3], spread),
    "all equal": ([0, 0, 1, 1, 2, 2], same),
    "all equal, one class": (np.zeros(6, int), same),
    "antipodal, other classes": ([0, 1, 2, 3, 4, 0], antipodal),
    "antipodal positives": ([0, 1, 2, 0, 1, 2], antipodal),
    "duplicates across classes": ([0, 0, 1, 1, 2, 2], spread[[0, 1, 0, 2, 1, 2]]),
    "duplicate positives": ([0, 0, 1, 1, 2, 2], spread[[0, 0, 1, 1, 2, 2]]),
    "zero vectors": ([0, 0, 1, 1, 2, 2], np.zeros((6, DIM))),
    "one sample": ([3], spread[:1]),
    "huge": ([0, 0, 1, 1, 2, 2], 1e4 * spread),
    "tiny": ([0, 0, 1, 1, 2, 2], 1e-3 * spread),
}


def awkward(proxies: np.ndarray, x: np.ndarray):
    """Proxies as they are, all on one sample, each on a sample or opposite to it, and of length 0."""
    on = np.resize(x, proxies.shape)
    return {"random": proxies, "one": np.resize(x[0], proxies.shape), "on": on, "opposite": -on, "zero": 0 * proxies}


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        *(pytest.param(row, "float32", id=f"float32-{row.name}") for row in ROWS),
        # Half precision becomes single at once, whatever the options: see below.
        *(pytest.param(row, "float16", id=f"float16-{row.name}") for row in ONE_A_CLASS),
    ],
)
def test_degenerate_batches_are_finite(row, dtype):
    loss = row.build("float32")
    start = weights_of(loss)
    for name, (classes, x) in DEGENERATE.items():
        labels, x = row.labels(classes), x.astype(dtype)
        for kind, proxies in awkward(start["proxies"], x).items() if "proxies" in start else [("", None)]:
            if proxies is not None:
                loss.proxies.assign(proxies)
            value, slope, slopes = measure(loss, labels, x)
            for result in (value, slope, *slopes.values()):
                assert np.isfinite(result).all(), (name, kind)
            assert slope.dtype == dtype
            if dtype == "float16":
                break


@every_row
def test_degenerate_batches_follow_the_formula(row):
    for name in ("no positives", "no negatives", "single samples", "one sample", "antipodal, other classes"):
        classes, x = DEGENERATE[name]
        loss, labels = row.build(), row.labels(classes)
        expected = row.expected(labels, x, weights_of(loss))
        assert float(loss(labels, x)) == pytest.approx(expected, rel=1e-7, abs=1e-7), name


@every_row
def test_half_precision_inputs_are_computed_in_single(row):
    labels, x = row.batch(seed=4)
    half, loss = x.astype(np.float16), row.build("float32")
    value = loss(labels, half)
    assert value.dtype == tf.float32
    expected = row.expected(labels, half.astype(np.float64), weights_of(loss))
    assert float(value) == pytest.approx(expected, rel=3e-4)


@every_row
def test_not_a_number_is_not_hidden(row):
    labels, x = row.batch()
    for bad in (np.nan, np.inf):
        x[0, 0] = bad
        assert np.isnan(float(row.build()(labels, x)))


# What the labels must be.


def wrong_labels(row, labels):
    yield "too few", labels[:-1]
    yield "too many axes", labels[:, None, None]
    yield "fractions", np.float32(labels) - 0.5
    yield "negative", labels - 1
    if row.multilabel:
        yield "counts", labels * 2
    else:
        yield "floats", labels.astype(np.float32)
        yield "soft", np.full((len(labels), CLASSES), 1 / CLASSES, np.float32)
        yield "two ones", np.minimum(1, np.eye(CLASSES, dtype=int)[labels] + np.eye(CLASSES, dtype=int)[labels - 1])
        yield "beyond int32", labels + 2**32
        yield "names", labels.astype(str)
    if row.classes:
        yield "too large", labels + CLASSES


@every_row
def test_wrong_labels_raise_eagerly_and_in_a_graph(row):
    labels, x = row.batch()
    loss = row.build()
    graph = tf.function(lambda labels, x: loss(labels, x))
    for what, bad in wrong_labels(row, labels):
        with pytest.raises(ValueError, match="`labels` must"):
            loss(bad, x)
        if row not in ONE_A_CLASS:
            continue  # a class takes its labels in one way, whatever its options
        if row in COMPILED_AGAIN or (np.shape(bad) == labels.shape and bad.dtype == labels.dtype):
            with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="`labels` must"):
                graph(tf.constant(bad), tf.constant(x))
                pytest.fail(what)


def model_with(row) -> keras.Model:
    """A plain Keras model for a pair loss; `MetricModel` for a loss that owns weights."""
    keras.utils.set_random_seed(1)
    loss = row.build("float32")
    if row.is_layer:
        model = MetricModel(keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(6), heads.Linear(DIM)]), loss)
        model.compile("sgd")
    else:
        model = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
        model.compile("sgd", loss=loss, jit_compile=False)
    return model


@every_class
def test_fit_trains_and_stops_at_wrong_labels(row):
    labels, x = row.batch(size=32)
    model = model_with(row)
    before = [weight.numpy() for weight in model.trainable_variables]
    expected = float(row.build("float32")(labels, model(x)))
    history = model.fit(x, labels, batch_size=32, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(history).all() and history[1] != history[0]
    for old, weight in zip(before, model.trainable_variables, strict=True):
        assert np.any(weight.numpy() != old), weight.path
    for what, bad in wrong_labels(row, labels):
        if what in ("too few", "names", "soft", "two ones"):  # Keras itself refuses the first two
            continue
        if row in COMPILED_AGAIN or (np.shape(bad) == labels.shape and bad.dtype == labels.dtype):
            with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="`labels` must"):
                model.fit(x, bad, batch_size=32, verbose=0)
                pytest.fail(what)


SINGLE_LABEL = [row for row in ONE_A_CLASS if not row.multilabel]


@rows(SINGLE_LABEL)
def test_one_hot_labels_are_taken_by_their_class(row):
    """As `keras.utils.image_dataset_from_directory(label_mode="categorical")` gives them."""
    labels, x = row.batch()
    value = float(row.build()(labels, x))
    for dtype in ("float32", "int64", "bool"):
        assert float(row.build()(np.eye(CLASSES, dtype=dtype)[labels], x)) == value


@pytest.mark.parametrize("loss", [losses.Contrastive, losses.ProxyAnchor])
def test_fit_takes_one_hot_labels(loss):
    row = next(row for row in ROWS if row.loss is loss)
    labels, x = row.batch(size=32)
    histories = [
        model_with(row).fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0).history["loss"]
        for y in (labels, np.eye(CLASSES, dtype="float32")[labels])
    ]
    assert histories[0] == pytest.approx(histories[1], rel=1e-6)


@rows(SINGLE_LABEL)
def test_what_are_no_labels_at_all_is_said_in_a_sentence(row):
    """The same sentence from a direct call and while a graph is being built."""
    labels, x = row.batch()
    ragged = tf.ragged.constant([[1], [2, 3]])
    cases = [
        (ragged, x[:2], "`labels` must have shape .* ragged"),
        ([[1], [2, 3]], x[:2], "`labels` must have shape .* list"),
        (labels.astype(complex), x, "`labels` must be integers .* complex128"),
        (labels.astype(str), x, "`labels` must be integers .* strings"),
        (x, labels, "`labels` must come first"),
        (x, labels[:, None], "`labels` must come first"),
        (labels, labels.astype(str), "`embeddings` must be floats; received dtype string"),
        (labels, x.astype(complex), "`embeddings` must be floats; received dtype complex128"),
        (labels[:2], tf.ragged.constant([[1.0], [2.0, 3.0]]), "`embeddings` must have shape .* ragged"),
    ]
    for wrong, embeddings, message in cases:
        loss = row.loss(**row.options)
        with pytest.raises(ValueError, match=message):
            loss(wrong, embeddings)
        if not isinstance(wrong, list) and row in COMPILED_AGAIN:
            with pytest.raises(ValueError, match=message):
                tf.function(lambda y, x, loss=loss: loss(y, x))(wrong, embeddings)


@pytest.mark.parametrize("loss", [losses.Contrastive, losses.ProxyAnchor])
def test_strings_in_a_pipeline_stop_fit_with_the_same_sentence(loss):
    row = next(row for row in ROWS if row.loss is loss)
    labels, x = row.batch(size=16)
    names = tf.data.Dataset.from_tensor_slices((x.astype("float32"), labels.astype(str))).batch(16)
    with pytest.raises(ValueError, match=r"`labels` must be integers .* received strings"):
        model_with(row).fit(names, verbose=0)


def test_wrong_labels_in_keras_own_fit_are_said_in_the_same_sentence():
    """What Keras hands on; it refuses arrays of strings, lists and a wrong shape of the images by itself."""
    row = next(row for row in ROWS if row.loss is losses.SupCon)
    labels, x = row.batch(size=16)
    x = x.astype("float32")
    ragged = tf.ragged.constant([[label] * (1 + (i == 1)) for i, label in enumerate(labels)])
    cases = [
        (labels.astype("float32"), "`labels` must be integers .* received dtype float32"),
        (labels.astype("complex64"), "`labels` must be integers .* received dtype complex64"),
        (labels > 1, "`labels` must be integers .* received dtype bool"),
        (ragged, "`labels` must have shape .* received ragged labels"),
    ]
    for wrong, message in cases:
        for data in ((x, wrong), (tf.data.Dataset.from_tensors((x, wrong)),)):
            with pytest.raises(ValueError, match=message):
                model_with(row).fit(*data, verbose=0)
    for wrong in (labels - 100, labels.astype("int64") + 2**40):  # known when the graph runs
        with pytest.raises(tf.errors.InvalidArgumentError, match="`labels` must not be negative, nor above"):
            model_with(row).fit(x, wrong, verbose=0)


# What Keras asks of them.


@rows(STATELESS)
def test_reductions_and_sample_weights(row):
    labels, x = row.batch()
    each = row.build(reduction=None)(labels, x)
    assert each.shape == (len(x),)
    weights = np.linspace(0, 2, len(x))
    assert float(row.build()(labels, x)) == pytest.approx(float(tf.reduce_mean(each)))
    assert float(row.build(reduction="sum")(labels, x)) == pytest.approx(float(tf.reduce_sum(each)))
    weighted = float(row.build()(labels, x, sample_weight=weights))
    assert weighted == pytest.approx(float(np.mean(each * weights)))
    column = float(row.build()(labels, x, sample_weight=weights[:, None]))
    assert column == pytest.approx(weighted)
    assert float(row.build()(labels, x, sample_weight=2.0)) == pytest.approx(2 * float(tf.reduce_mean(each)))
    mean = float(row.build(reduction="mean_with_sample_weight")(labels, x, sample_weight=weights))
    assert mean == pytest.approx(float(np.sum(each * weights) / weights.sum()))


@every_row
def test_configuration_round_trip(row):
    loss = row.build("float32")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    labels, x = row.batch()
    if row.is_layer:
        assert again.built
        again.set_weights(loss.get_weights())
    assert float(again(labels, x)) == float(loss(labels, x))
    for key, value in row.options.items():
        if key not in ("miner", "loss"):
            assert again.get_config()[key] == value
    assert set(inspect.signature(row.loss).parameters) - {"kwargs"} <= set(again.get_config())


@rows([row for row in ONE_A_CLASS if row.loss in (losses.Contrastive, losses.ProxyAnchor)])
def test_a_graph_that_saw_labels_of_both_ranks_takes_both_and_no_others(row):
    labels, x = row.batch()
    loss = row.build()
    specs = [tf.TensorSpec(None, tf.int64), tf.TensorSpec((None, x.shape[1]), tf.float64)]
    graph = tf.function(lambda labels, x: loss(labels, x), input_signature=specs)
    wanted = float(loss(labels, x))
    labels = labels.astype("int64")
    assert float(graph(labels, x)) == float(graph(labels[:, None], x)) == pytest.approx(wanted)
    for wrong in (labels[:, None, None], labels[:-1], np.stack([labels, labels], axis=1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`labels` must have shape"):
            graph(wrong, x)


def test_what_seems_to_be_swapped_is_wide_where_labels_belong_and_flat_where_embeddings_do():
    from tf_detreg.losses.labels import refuse_swapped

    for labels, embeddings in (
        (tf.range(3), tf.ones((3, 1))),  # embeddings of one number
        (tf.ones((3, 4)), tf.ones((3, 4))),  # one-hot labels as floats
        (tf.ones((3, 1)), tf.ones((3, 1))),
        (tf.ones((3, 4), tf.int32), tf.ones((3, 1))),
    ):
        refuse_swapped(labels, embeddings)
    for embeddings in (tf.range(3), tf.range(3)[:, None]):
        with pytest.raises(ValueError, match="`labels` must come first"):
            refuse_swapped(tf.ones((3, 4)), embeddings)

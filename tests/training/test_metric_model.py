import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import heads, losses, miners, regularizers
from tf_detreg.losses.proxy_anchor import ProxyAnchor
from tf_detreg.regularizers.base import Regularizer
from tf_detreg.replicas import GlobalBatch
from tf_detreg.training import Interpolation, MetricModel, checkpoint

CLASSES = 5


@keras.saving.register_keras_serializable("tests")
class PullTogether(keras.losses.Loss):
    """A pair loss of one line, so that these tests do not depend on any of ours."""

    def call(self, labels, embeddings):
        same = tf.cast(labels[:, None] == labels[None, :], embeddings.dtype)
        return tf.reduce_mean((tf.matmul(embeddings, embeddings, transpose_b=True) - same) ** 2, axis=1)


@keras.saving.register_keras_serializable("tests")
class FeatureNorm(Regularizer):
    def penalty(self, context):
        (features,) = context.need("features", by=self.name)
        return tf.reduce_mean(features**2)


def embedder(head, image_size=6, width=7, **dense):
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(width, name="features", **dense),
            head,
        ],
        name="embedder",
    )


def flow(penalty=0.05, measure="shifted", **kwargs):
    return heads.RealNVP(dim=6, depth=2, hidden=8, penalty=penalty, measure=measure, **kwargs)


@pytest.fixture
def data():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 4).astype("int32")
    images = rng.uniform(0, 60, (20, 6, 6, 3)) + 35.0 * labels[:, None, None, None]
    return images.astype("float32"), labels


def fit(model, data, epochs=1, rate=1e-2, **kwargs):
    model.compile(keras.optimizers.AdamW(rate), **kwargs)
    return model.fit(*data, batch_size=20, epochs=epochs, shuffle=False, verbose=0).history


@pytest.mark.parametrize("loss", [PullTogether, lambda: ProxyAnchor(CLASSES)])
def test_training_lowers_the_loss_and_logs_every_term(data, loss):
    model = MetricModel(embedder(flow()), loss(), regularizers=[FeatureNorm(weight=0.01, name="norm")])
    history = fit(model, data, epochs=15)
    assert history["metric_loss"][-1] < 0.9 * history["metric_loss"][0]
    whole = (
        np.array(history["metric_loss"]) + 0.05 * np.array(history["determinant"]) + 0.01 * np.array(history["norm"])
    )
    np.testing.assert_allclose(history["loss"], whole, rtol=1e-5)


def test_the_objective_is_the_formula(data):
    images, labels = data
    rival = flow(-0.3, name="rival", measure="isometric")
    model = MetricModel(embedder(flow(0.7)), PullTogether(), rival=rival, rival_loss_weight=0.25)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.3 * np.random.default_rng(1).normal(size=weight.shape))
    objective, terms, _ = model.objective(images, labels, training=False)
    features = model.backbone(images)
    total = 0.0
    for head, loss_weight in ((model.head, 1.0), (rival, 0.25)):
        y, log_scales = head.flow(head.project(features))
        total += loss_weight * tf.reduce_mean(PullTogether().call(labels, head.normalize(y)))
        total += head.penalty * head.regularity(log_scales)
    np.testing.assert_allclose(objective, total, rtol=1e-5)
    assert abs(terms["determinant"]) > 1e-3 and abs(terms["rival_determinant"]) > 1e-3


def test_the_rivals_gradient_reaches_the_backbone_with_the_opposite_sign(data):
    images, labels = data

    def gradient(main, other):
        """Of the objective less the metric loss, with the penalties as given and all weights equal."""
        keras.utils.set_random_seed(0)
        model = MetricModel(embedder(flow(main)), PullTogether(), rival=flow(other, name="rival"))
        rng = np.random.default_rng(2)
        for weight in model.embedder.trainable_variables:
            weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
        model.rival.set_weights(model.head.get_weights())
        kernel = model.backbone.get_layer("features").kernel
        with tf.GradientTape() as tape:
            objective, terms, _ = model.objective(images, labels, training=True)
            value = objective - terms["metric_loss"]
        return tape.gradient(value, kernel.value).numpy()

    main, rival = gradient(0.1, 0.0), gradient(0.0, -0.1)
    assert np.abs(main).max() > 1e-6
    np.testing.assert_allclose(rival, -main, atol=1e-6 * np.abs(main).max() + 1e-9)
    np.testing.assert_allclose(gradient(0.1, -0.1), 0, atol=1e-3 * np.abs(main).max())


def test_the_literal_rival_gets_no_metric_loss(data):
    images, labels = data
    model = MetricModel(embedder(flow()), PullTogether(), rival=flow(-0.05, name="rival"))
    model.head.penalty = model.rival.penalty = 0.0
    with tf.GradientTape() as tape:
        objective, _, _ = model.objective(images, labels, training=True)
    gradients = tape.gradient(objective, [v.value for v in model.rival.trainable_variables])
    assert all(g is None or not np.any(g) for g in gradients)


@pytest.mark.usefixtures("eager")
def test_a_dueling_head_is_taken_apart_and_the_embedder_is_free_of_the_rival(data):
    model = MetricModel(embedder(heads.Dueling(flow())), ProxyAnchor(CLASSES), rival_loss_weight=0.5)
    history = fit(model, data)
    assert {"rival_determinant", "rival_loss"} <= set(history)
    paths = [variable.path for variable in model.embedder.variables]
    assert not any("rival" in path or "proxies" in path for path in paths)
    with pytest.raises(ValueError, match="rival"):
        MetricModel(embedder(heads.Dueling(flow())), PullTogether(), rival=flow(-1.0))


@pytest.mark.usefixtures("eager")
def test_the_rival_may_own_its_proxies(data):
    def count(rival_proxies):
        model = MetricModel(
            embedder(flow()), ProxyAnchor(CLASSES), flow(-0.1, name="rival"), 1.0, rival_proxies=rival_proxies
        )
        fit(model, data)
        return sum("proxies" in variable.path for variable in model.trainable_variables)

    assert count("shared") == 1
    assert count("own") == 2


def test_mixed_points_enter_the_regularity_and_nothing_else(data):
    images, labels = data
    model = MetricModel(embedder(flow(0.5)), PullTogether(), interpolation=0.4)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.3 * np.random.default_rng(1).normal(size=weight.shape))
    _, with_mixed, _ = model.objective(images, labels, training=True)
    z = model.head.project(model.backbone(images))
    both = tf.concat([z, Interpolation(0.4)(z, labels)], axis=0)
    np.testing.assert_allclose(with_mixed["determinant"], model.head.regularity(model.head.flow(both)[1]), rtol=1e-5)
    model.interpolation = None
    _, without, _ = model.objective(images, labels, training=True)
    assert abs(with_mixed["determinant"] - without["determinant"]) > 1e-6
    np.testing.assert_allclose(with_mixed["metric_loss"], without["metric_loss"], rtol=1e-6)


def test_replicas_exchange_only_what_a_regularizer_needs(data, monkeypatch):
    gathered = []
    monkeypatch.setattr(GlobalBatch, "gather", lambda batch, values: gathered.append(values.shape[1:]) or values)
    for regularizer, exchanged in (
        (regularizers.Uniformity(), [(), (6,)]),  # labels and embeddings
        (FeatureNorm(), [(), (6,), (7,)]),
        (regularizers.Lipschitz(part="backbone"), [(), (6,), (6, 6, 3)]),
    ):
        gathered.clear()
        MetricModel(embedder(flow()), PullTogether(), regularizers=[regularizer]).objective(*data, training=True)
        assert [tuple(shape) for shape in gathered] == exchanged


@pytest.mark.usefixtures("eager")
def test_losses_that_layers_add_are_counted_once_a_step(data):
    model = MetricModel(embedder(flow(), kernel_regularizer=keras.regularizers.L2(0.1)), PullTogether())
    expected = 0.1 * np.sum(model.backbone.get_layer("features").kernel.numpy() ** 2)
    model(data[0], training=True)  # leaves the head's own penalty behind, which must not be counted again
    history = fit(model, data, rate=0.0)
    np.testing.assert_allclose(
        history["loss"][0] - history["metric_loss"][0] - 0.05 * history["determinant"][0], expected, rtol=1e-4
    )


@pytest.mark.usefixtures("eager")
def test_losses_that_layers_add_only_when_called_count_too(data):
    """A penalty on activities is in nobody's `losses` before the first call."""
    plain = MetricModel(embedder(flow()), PullTogether())
    model = MetricModel(embedder(flow(), activity_regularizer=keras.regularizers.L2(0.5)), PullTogether())
    model.set_weights(plain.get_weights())
    plain_logs, logs = (fit(each, data, rate=0.0) for each in (plain, model))
    activity = 0.5 * np.sum(model.backbone(data[0]) ** 2) / len(data[0])
    assert "layer_losses" not in plain_logs
    assert logs["layer_losses"][0] == pytest.approx(activity, rel=1e-5)
    assert logs["loss"][0] == pytest.approx(plain_logs["loss"][0] + logs["layer_losses"][0], rel=1e-5)
    # With several replicas Keras logs the means over all of them only if a step reports just what the model lists.
    for each, names in ((plain, plain_logs), (model, logs)):
        assert each.get_metrics_result().keys() == names.keys()


@pytest.mark.usefixtures("eager")
def test_round_trip_keeps_weights_optimizer_and_config(data, tmp_path):
    model = MetricModel(
        embedder(heads.Dueling(flow())),
        ProxyAnchor(CLASSES),
        rival_loss_weight=0.5,
        rival_proxies="own",
        interpolation=Interpolation(0.3, neighbors=2, random=True, seed=4),
        regularizers=[FeatureNorm(weight=0.01, name="norm")],
    )
    fit(model, data)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    assert len(again.weights) == len(model.weights)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.predict(data[0], verbose=0), again.predict(data[0], verbose=0))
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    again.fit(*data, batch_size=20, verbose=0)


RANDOM = {
    "a miner's draws": lambda: {"loss": losses.Triplet(miner=miners.DistanceWeighted())},
    "a layer's miner's draws": lambda: {"loss": losses.Margin(miner=miners.DistanceWeighted())},
    "a memory's miner's draws": lambda: {
        "loss": losses.CrossBatchMemory(losses.Triplet(miner=miners.DistanceWeighted()))
    },
    "drawn centers": lambda: {"loss": ProxyAnchor(CLASSES), "regularizers": [regularizers.Uniformity(max_rows=2)]},
    "drawn names": lambda: {
        "loss": ProxyAnchor(CLASSES),
        "regularizers": [regularizers.LanguageGuidance(np.eye(CLASSES) + 0.1, max_rows=2)],
    },
}


@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_a_restored_model_draws_as_the_unbroken_one_would(data, make):
    def start():
        keras.utils.set_random_seed(0)
        model = MetricModel(embedder(heads.Linear(6)), **make())  # which draws nothing itself
        model.compile(keras.optimizers.AdamW(1e-2))
        model.optimizer.build(model.trainable_variables)
        return model

    def train(model):
        model.fit(*data, batch_size=20, epochs=3, shuffle=False, verbose=0)
        return {name: variable.numpy() for name, variable in checkpoint.state_of(model).items()}

    unbroken = start()
    kept, end = train(unbroken), train(unbroken)
    resumed = start()
    for name, variable in checkpoint.state_of(resumed).items():
        variable.assign(kept[name])
    for name, value in train(resumed).items():
        np.testing.assert_array_equal(value, end[name], err_msg=name)


@pytest.mark.usefixtures("eager")
def test_evaluate_reports_the_terms_without_training(data):
    model = MetricModel(embedder(flow()), PullTogether())
    fit(model, data)
    before = model.get_weights()
    logs = model.evaluate(*data, batch_size=7, verbose=0, return_dict=True)
    assert {"loss", "metric_loss", "determinant"} <= set(logs)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(data, policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES), interpolation=0.4)
        history = fit(model, data, epochs=8)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert history["metric_loss"][-1] < history["metric_loss"][0]
    assert model.embedder(data[0]).dtype == "float32"


def test_compiled_by_xla_it_computes_the_same(data):
    def losses_of(jit_compile):
        keras.utils.set_random_seed(3)
        model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES), interpolation=0.4)
        return fit(model, data, epochs=2, jit_compile=jit_compile)["loss"]

    np.testing.assert_allclose(losses_of(True), losses_of(False), rtol=1e-4)


@pytest.mark.usefixtures("eager")
def test_a_batch_without_positive_pairs_trains_on(data):
    images, labels = data
    model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES), interpolation=0.4)
    history = fit(model, (images[::4], labels[::4]))
    assert np.isfinite(history["loss"]).all()


def test_a_dataset_needs_no_word_about_shuffling(data):
    batches = tf.data.Dataset.from_tensor_slices(data).batch(20)
    model = MetricModel(embedder(flow()), PullTogether())
    model.compile("adam")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(batches, verbose=0)
    with pytest.warns(UserWarning, match="shuffle=True"):
        model.fit(batches, shuffle=True, verbose=0)


def test_labels_out_of_range_stop_fit_with_a_clear_error(data):
    model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES - 1))
    with pytest.raises(ValueError, match="num_classes"):
        fit(model, data)


def test_plain_keras_trains_with_the_heads_penalty(data):
    model = embedder(flow(penalty=0.5))
    model.compile(keras.optimizers.AdamW(1e-2), loss=PullTogether(), jit_compile=False)
    history = model.fit(*data, batch_size=20, epochs=10, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model(data[0], training=True)
    assert len(model.losses) == 1


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = flow()

    def call(self, images):
        return self.head(images)


def two_outputs():
    features = keras.Input((7,))
    return keras.Model(features, [flow()(features), keras.layers.Dense(2)(features)])


def two_inputs():
    parts = [keras.Input((7,)), keras.Input((3,))]
    return keras.Model(parts, flow()(keras.layers.Concatenate()(parts)))


@pytest.mark.parametrize("weights", [{"sample_weight": np.ones(20)}, {"class_weight": {0: 2.0}}])
def test_weights_of_samples_are_refused_rather_than_ignored(data, weights):
    model = MetricModel(embedder(flow()), PullTogether())
    model.compile("sgd")
    with pytest.raises(ValueError, match="`sample_weight` must be None"):
        model.fit(*data, verbose=0, **weights)


def test_labels_that_interpolation_cannot_read_are_named(data):
    images, labels = data
    model = MetricModel(embedder(flow()), PullTogether(), interpolation=0.4)
    with pytest.raises(ValueError, match="`labels` must have shape"):
        fit(model, (images, np.eye(CLASSES, dtype="int32")[labels]))


@pytest.mark.usefixtures("eager")
def test_terms_have_the_same_names_in_every_model_of_a_process(data):
    for _ in range(2):
        parts = [regularizers.Uniformity(), regularizers.LogExpMean(), regularizers.Uniformity(temperature=1.0)]
        model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES), regularizers=parts)
        log = fit(model, data)
        assert {"uniformity", "uniformity_1", "log_exp_mean"} <= log.keys()
        assert log["uniformity"] != log["uniformity_1"]


def test_exporting_the_model_stores_the_embedder_alone(data, tmp_path):
    model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES), rival=flow(-0.1), rival_loss_weight=1.0)
    fit(model, data)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(served.serve(data[0]), model.predict(data[0], verbose=0), atol=1e-6)
    assert len(served.variables) == len(model.embedder.variables)


def test_float64_stays_float64_with_every_part():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 7)), np.repeat(np.arange(CLASSES), 4)
    embed = keras.Sequential([keras.Input((7,), dtype="float64"), flow(dtype="float64")])
    non_isotropy = regularizers.NonIsotropy(dim=6, depth=1, hidden=4)
    model = MetricModel(
        embed,
        ProxyAnchor(CLASSES, dtype="float64"),
        rival=flow(-0.1, dtype="float64"),
        interpolation=Interpolation(0.4, neighbors=2, random=True),
        regularizers=[regularizers.Uniformity(), regularizers.Lipschitz(part="head"), non_isotropy],
    )
    assert np.isfinite(fit(model, (features, labels))["loss"]).all()
    assert model.predict(features, verbose=0).dtype == np.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MetricModel(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), PullTogether()), "head"),
        (lambda: MetricModel(keras.Sequential([flow()]), PullTogether()), "must be built"),
        (lambda: MetricModel(embedder(flow()), PullTogether(), rival_loss_weight=1.0), "rival_loss_weight"),
        (
            lambda: MetricModel(embedder(flow()), PullTogether(), rival=flow(-1.0), rival_proxies="none"),
            "rival_proxies",
        ),
        (
            lambda: MetricModel(embedder(flow()), PullTogether(), regularizers=[FeatureNorm(name="determinant")]),
            "different names",
        ),
        (lambda: MetricModel(embedder(flow()), PullTogether(), regularizers=FeatureNorm()), "must be a list"),
        (
            lambda: MetricModel(embedder(flow()), PullTogether(), regularizers=[keras.regularizers.L2()]),
            "must be a list",
        ),
        (lambda: MetricModel(embedder(flow()), "mse"), "`loss` must be a pair loss"),
        (lambda: MetricModel(embedder(flow()), PullTogether), "`loss` must be a pair loss"),
        (lambda: MetricModel(embedder(flow()), PullTogether(), rival=keras.layers.Dense(6)), "`rival` must be a head"),
        (lambda: MetricModel(embedder(main := flow()), PullTogether(), rival=main), "another head"),
        (
            lambda: MetricModel(embedder(flow()), ProxyAnchor(CLASSES), heads.NICE(8, penalty=-1.0), 1.0),
            "`rival` must have .*received dim=8",
        ),
        (lambda: MetricModel(Subclassed(), PullTogether()), "subclassed"),
        (lambda: MetricModel(two_outputs(), PullTogether()), "1 inputs and 2 outputs"),
        (lambda: MetricModel(two_inputs(), PullTogether()), "2 inputs and 1 outputs"),
        (lambda: MetricModel(embedder(flow()), PullTogether()).compile(loss="mse"), "loss"),
        (
            lambda: MetricModel(embedder(flow()), PullTogether()).compile("adam", metrics=["mae"]),
            r"`metrics` must be left out.*received \['mae'\]",
        ),
        (
            lambda: MetricModel(embedder(flow()), PullTogether()).compile("adam", weighted_metrics=["mse"]),
            r"`metrics` must be left out.*received \['mse'\]",
        ),
        (
            lambda: MetricModel(embedder(flow()), PullTogether()).compile("adam", losses.ProxyAnchor(4)),
            "`loss` must be given",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_output_has_a_row_for_each_image():
    model = MetricModel(embedder(flow()), ProxyAnchor(CLASSES))
    assert model.compute_output_shape((7, 6, 6, 3)) == (7, 6)
    assert model.compute_output_shape((None, 6, 6, 3)) == (None, 6)

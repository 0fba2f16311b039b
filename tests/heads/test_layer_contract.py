"""What Keras and deployment ask of every head: configuration, precision, compilation, shapes, refusals."""

import inspect
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

from tests.heads.table import ALL, CONTROLS, FLOWS, embedder, features, make
from tf_detreg import heads


@pytest.mark.parametrize("name", ALL)
def test_config_round_trip_keeps_every_argument(name):
    more = {"penalty": -0.2, "measure": "shifted"} if name in FLOWS else {}
    head = make(name, dropout=0.1, connection="tanh", projection="always", **more)
    copy = type(head).from_config(head.get_config())
    assert copy.get_config() == head.get_config()
    arguments = set(inspect.signature(type(head)).parameters) - {"kwargs"}
    assert arguments <= set(head.get_config())
    assert {key: head.get_config()[key] for key in more} == more


@pytest.mark.parametrize("name", ALL)
def test_help_names_every_argument(name):
    kind, _ = ALL[name]
    parameters = inspect.signature(kind).parameters.values()
    assert {p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} == set()
    for p in parameters:
        assert p.annotation is not p.empty, p.name


@pytest.mark.parametrize("name", CONTROLS)
def test_a_head_without_a_jacobian_takes_no_penalty_but_its_old_files_load(name, tmp_path):
    kind, options = ALL[name]
    assert not issubclass(kind, heads.FlowHead) and not hasattr(kind, "inverse")
    assert not {"penalty", "measure"} & set(inspect.signature(kind).parameters)
    with pytest.warns(DeprecationWarning, match="`penalty` has no effect"):
        head = kind(5, penalty=0.1, **options)
    assert head.penalty == 0.0
    x = features(dtype="float32").numpy()
    model = embedder(head)
    model.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for item in new.namelist():
            data = new.read(item)
            if item == "config.json":  # as version 0.1.0 wrote it
                config = json.loads(data)
                config["config"]["layers"][-1]["config"] |= {"penalty": 0.1, "measure": "isometric"}
                data = json.dumps(config).encode()
            old.writestr(item, data)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("name", ALL)
def test_keras_layer_test(name):
    kind, options = ALL[name]
    head = make(name, dtype="float32")
    testing.TestCase().run_layer_test(
        kind,
        init_kwargs={"dim": 5, **options, **({"steps": 2} if name == "ffjord" else {}), "tolerance": 1e-3}
        if name.startswith("ffjord")
        else {"dim": 5, **options},
        input_shape=(4, 8),
        expected_output_shape=(4, 5),
        expected_num_trainable_weights=len(head.trainable_weights),
        expected_num_non_trainable_weights=len(head.non_trainable_weights),
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=False,
        run_mixed_precision_check=False,  # A head stays in float32 on purpose; tested below.
        assert_built_after_instantiation=False,
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("name", ["real_nvp", "glow", "ffjord", "linear"])
def test_float32_inside_a_half_precision_model(name, policy):
    kind, options = ALL[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(7), kind(5, **options)])
    finally:
        keras.config.set_dtype_policy(before)
    assert model.layers[0].compute_dtype.endswith("float16") and model.layers[-1].compute_dtype == "float32"
    assert {v.dtype for v in model.layers[-1].variables} == {"float32"}
    with tf.GradientTape() as tape:
        out = model(features(dtype="float32"), training=True)
        loss = tf.reduce_sum(out[:, 0])
    assert out.dtype == tf.float32
    assert all(g is not None for g in tape.gradient(loss, [v.value for v in model.layers[0].trainable_variables]))


@pytest.mark.parametrize("name", ["real_nvp", "nice", "glow", "ffjord", "ffjord_adaptive"])
def test_compiled_by_xla(name):
    options = {"ffjord": {"steps": 2}, "ffjord_adaptive": {"tolerance": 1e-3, "max_steps": 8}}.get(name, {"depth": 2})
    head = make(name, dtype="float32", **options)
    x = features(dtype="float32")
    head(x, training=True)  # Glow's first batch.

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, log_scales = head.flow(head.project(x, True), True)
            value = tf.reduce_sum(head.normalize(y)[:, 0]) + head.regularity(log_scales)
        return value, tape.gradient(value, [x, *(v.value for v in head.trainable_variables)])

    value, plain = gradients(x)
    compiled_value, compiled = tf.function(gradients, jit_compile=True)(x)
    np.testing.assert_allclose(value, compiled_value, rtol=1e-4, atol=1e-5)
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dim, width, batch", [(2, 2, 3), (5, 5, 1), (7, 3, 1), (4, 9, 2)])
def test_shapes_and_unit_length(name, dim, width, batch):
    head = make(name, dim=dim, width=width, dtype="float32", **({"tolerance": 1e-4} if "adaptive" in name else {}))
    for training in (False, True):
        out = head(features(batch, width, dtype="float32"), training=training)
        assert out.shape == (batch, dim)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_zero_features_give_finite_values_and_gradients(name):
    head = make(name, dtype="float32", grow=0.0)
    x = tf.zeros((3, 8))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(head(x))
    assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, x)).all()


@pytest.mark.parametrize("name", ["real_nvp", "nice", "glow", "ffjord", "linear", "residual_mlp"])
def test_plain_fit_trains_with_the_penalty(name):
    keras.utils.set_random_seed(0)
    kind, options = ALL[name]
    options = {**options, **({"steps": 3} if name == "ffjord" else {}), **({"penalty": 0.5} if name in FLOWS else {})}
    options |= {"depth": 1} if "depth" in options else {}  # a third of the trace
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), kind(5, **options)])
    model.compile("adam", "mse")
    x = features(32, dtype="float32").numpy()
    target = np.eye(5, dtype="float32")[np.arange(32) % 5]
    history = model.fit(x, target, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_dropout_acts_only_in_training():
    head = make("real_nvp", dtype="float32", dropout=0.5, conditioner_dropout=0.5)
    x = features(dtype="float32")
    np.testing.assert_array_equal(head(x), head(x))
    assert np.abs(head(x, training=True) - head(x, training=True)).max() > 1e-3
    y_first, _ = head.flow(head.project(x), training=True)
    y_second, _ = head.flow(head.project(x), training=True)
    assert np.abs(y_first - y_second).max() > 1e-4


def test_whole_numbers_are_features_too():
    x = np.arange(24).reshape(3, 8)
    head = make("real_nvp", dtype="float32")
    np.testing.assert_array_equal(head(x), head(x.astype("float32")))


# Refusals: each names the argument and shows what came.


@pytest.mark.parametrize("name", FLOWS)
def test_the_pieces_of_a_head_without_weights_are_refused(name):
    kind, options = FLOWS[name]
    head = kind(5, **options)
    for piece in (lambda: head.project(features()), lambda: head.inverse(tf.zeros((2, 5))), head.bijector):
        with pytest.raises(ValueError, match="is not built"):
            piece()


def test_the_inverse_takes_what_flow_gives_in_any_precision():
    head = make("real_nvp", dtype="float32")
    y = head.flow(head.project(features(dtype="float32")))[0]
    for same in (y.numpy(), tf.cast(y, tf.float64), y.numpy().tolist()):
        np.testing.assert_array_equal(head.inverse(same), head.inverse(y))
    for other in (y[:, :4], y[0]):
        with pytest.raises(ValueError, match=r"`y` must have shape \(batch, dim=5\)"):
            head.inverse(other)


BAD = [
    ({"dim": 1}, "`dim` must be .* 2 or more; received 1"),
    ({"dim": 2.5}, "`dim` must be a whole number"),
    ({"dim": None}, "`dim` must be a whole number.* received None"),
    ({"dim": float("nan")}, "`dim` must be a whole number.* received nan"),
    ({"depth": "12"}, "`depth` must be .* received '12'"),
    ({"depth": 0}, "`depth` must be .* 1 or more; received 0"),
    ({"hidden": 0}, "`hidden` must be"),
    ({"hidden_layers": -1}, "`hidden_layers` must be .* received -1"),
    ({"scale_bound": 0.0}, "`scale_bound` must be a finite number above 0; received 0.0"),
    ({"scale_bound": -1.0}, "scale_bound"),
    ({"scale_bound": float("nan")}, "`scale_bound` must be a finite number"),
    ({"scale_bound": None}, "`scale_bound` must be a finite number above 0; received None"),
    ({"penalty": float("inf")}, "`penalty` must be a finite number; received inf"),
    ({"penalty": "0.05"}, "`penalty` must be a finite number; received '0.05'"),
    ({"dropout": "none"}, "`dropout` must be .* received 'none'"),
    ({"measure": "volume"}, "`measure` must be one of .*received 'volume'"),
    ({"projection": "maybe"}, "`projection` must be one of .*received 'maybe'"),
    ({"dropout": 1.0}, r"`dropout` must be a number in \[0, 1\); received 1.0"),
    ({"conditioner_dropout": -0.1}, "conditioner_dropout"),
]


@pytest.mark.parametrize("options, message", BAD)
@pytest.mark.parametrize("kind", [heads.RealNVP, heads.NICE, heads.Glow])
def test_bad_arguments(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"dim": 4, **options})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dim": 1}, "dim"),
        ({"steps": 0}, "`steps` must be"),
        ({"solver": "euler"}, "`solver` must be one of"),
        ({"trace": "none"}, "`trace` must be one of"),
        ({"tolerance": 0}, "`tolerance` must be"),
        ({"max_steps": 0}, "`max_steps` must be"),
        ({"scale_bound": 0}, "`scale_bound` must be"),
    ],
)
def test_bad_ffjord_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        heads.FFJORD(**{"dim": 4, **options})


@pytest.mark.parametrize("name", ALL)
def test_images_and_unknown_width_are_refused(name):
    kind, options = ALL[name]
    with pytest.raises(ValueError, match=r"`features` must have shape \(batch, width\).*\(2, 8, 8, 3\).*backbone"):
        kind(4, **options)(tf.zeros((2, 8, 8, 3)))
    with pytest.raises(ValueError, match="`features` must have a static width"):
        kind(4, **options)(keras.Input((None,)))
    built = make(name, dtype="float32")
    with pytest.raises(ValueError, match="expected ndim=2"):
        built(tf.zeros((2, 8, 8, 3)))


def test_projection_never_needs_the_right_width():
    with pytest.raises(ValueError, match=r"`projection` must .*dim=4; received 'never'.*\(2, 8\)"):
        heads.RealNVP(4, projection="never")(tf.zeros((2, 8)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", ALL)
def test_bad_features_are_refused_eagerly(name, value):
    head = make(name, dtype="float32")
    x = features(dtype="float32").numpy()
    x[2, 3] = value
    with pytest.raises(ValueError, match=r"`features` must be finite.*received 1 value\(s\) .*row 2"):
        head(tf.constant(x))


@pytest.mark.parametrize("name", [name for name in ALL if name != "ffjord_adaptive"])
def test_nan_in_a_graph_stays_in_its_row(name):
    head = make(name, dtype="float32")
    x = features(dtype="float32").numpy()
    clean = head(tf.constant(x)).numpy()
    x[2, 3] = np.nan
    out = tf.function(head)(tf.constant(x)).numpy()
    assert np.isnan(out[2]).all()
    np.testing.assert_allclose(np.delete(out, 2, axis=0), np.delete(clean, 2, axis=0), atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_variable_count_does_not_grow_with_calls(name):
    head = make(name, dtype="float32")
    before = len(head.variables)
    head(features(dtype="float32"), training=True)
    head.bijector()
    assert len(head.variables) == before

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import heads, regularizers
from tf_detreg.losses import Margin, ProxyAnchor, SupCon
from tf_detreg.training import GroupedOptimizer, MetricModel, WarmUpDecay, averaged, optimizer
from tf_detreg.training.optimizers import inner_optimizers


def model_with(head, rival=None, layer="backbone_dense"):
    images = keras.Input((4, 4, 3))
    features = keras.layers.Dense(5, name=layer)(keras.layers.Flatten()(images))
    return MetricModel(keras.Sequential([keras.Model(images, features), head]), ProxyAnchor(3), rival=rival)


def flow(**kwargs):
    return heads.RealNVP(4, depth=2, hidden=6, **kwargs)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(0, 1, (6, 4, 4, 3)), tf.float32), tf.constant([0, 0, 1, 1, 2, 2])


def test_every_weight_is_in_its_group():
    model = model_with(flow(), rival=flow(penalty=-0.1, name="against"))
    groups = optimizer()
    model.compile(groups)
    found = {v.path.split("/")[-1]: groups.group_of(v) for v in model.backbone.trainable_variables}
    assert set(found.values()) == {"backbone"}
    for head in (model.head, model.rival):
        assert {groups.group_of(v) for v in head.trainable_variables} == {"head"}
    assert groups.group_of(model.loss_function.proxies) == "proxies"


def test_each_group_moves_at_its_own_rate(batch):
    """Adam's first step has the length of the learning rate."""
    model = model_with(flow())
    model.compile(optimizer(1e-5, 1e-4, 10.0, method="Adam"))
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(*batch, batch_size=6, verbose=0)
    moved = {"backbone": 0.0, "head": 0.0, "proxies": 0.0}
    for old, v in zip(before, model.trainable_variables, strict=True):
        group = model.optimizer.group_of(v)
        moved[group] = max(moved[group], np.abs(v.numpy() - old).max())
    np.testing.assert_allclose([moved["backbone"], moved["head"], moved["proxies"]], [1e-5, 1e-4, 1e-3], rtol=0.05)


@pytest.mark.parametrize("layer", ["linear", "embedding", "head", "proxies", "real_nvp"])
def test_no_name_hides_the_group(layer):
    """A transformer has `vit/embedding/kernel`, which is no head."""
    model = model_with(flow(name="mine"), layer=layer, rival=flow(penalty=-0.1, name="other"))
    model.compile(groups := optimizer())
    assert {groups.group_of(v) for v in model.backbone.trainable_variables} == {"backbone"}
    for head in (model.head, model.rival):
        assert {groups.group_of(v) for v in head.trainable_variables} == {"head"}
    assert groups.group_of(model.loss_function.proxies) == "proxies"


def test_plain_keras_has_the_groups_too(batch, tmp_path):
    images = keras.Input((4, 4, 3))
    features = keras.layers.Dense(5, name="embedding")(keras.layers.Flatten()(images))
    model = keras.Model(images, flow(name="mine")(features))
    model.compile(optimizer(1e-5, 1e-4, method="Adam"), loss=SupCon())
    groups = model.optimizer
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(*batch, batch_size=6, verbose=0)
    assert [groups.group_of(v) for v in model.trainable_variables[:2]] == ["backbone"] * 2
    assert {groups.group_of(v) for v in model.trainable_variables[2:]} == {"head"}
    moved = [np.abs(v.numpy() - old).max() for old, v in zip(before, model.trainable_variables, strict=True)]
    np.testing.assert_allclose([moved[0], max(moved[2:])], [1e-5, 1e-4], rtol=0.05)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert [again.optimizer.group_of(v) for v in again.trainable_variables] == [
        groups.group_of(v) for v in model.trainable_variables
    ]


def test_a_layer_of_ones_own_is_the_head_if_it_is_given(batch, caplog, tmp_path):
    def plain(**options):
        images = keras.Input((4, 4, 3))
        last = keras.layers.Dense(4, name="last")
        features = keras.layers.Dense(5, name="first")(keras.layers.Flatten()(images))
        model = keras.Model(images, last(features))
        model.compile(optimizer(**({"head": last} if options.get("given") else {})), loss=SupCon())
        model.fit(*batch, batch_size=6, verbose=0)
        return model, [model.optimizer.group_of(v) for v in model.trainable_variables]

    model, groups = plain(given=True)
    assert groups == ["backbone", "backbone", "head", "head"] and not caplog.text
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert [again.optimizer.group_of(v) for v in again.trainable_variables] == groups
    assert plain()[1] == ["backbone"] * 4 and "No weight belongs to a head" in caplog.text


def test_a_name_still_works_and_is_deprecated():
    with pytest.warns(DeprecationWarning, match="give the layer itself"):
        groups = optimizer(head="backbone_dense")
    model = model_with(flow())
    model.compile(groups)
    assert {groups.group_of(v) for v in model.backbone.trainable_variables} == {"head"}


def test_other_weights_of_a_loss_learn_with_the_heads():
    images = keras.Input((4, 4, 3))
    model = MetricModel(keras.Model(images, flow()(keras.layers.Flatten()(images))), Margin(num_classes=3))
    model.compile(groups := optimizer(backbone_delay=5))
    assert groups.group_of(model.loss_function.beta) == "head"


def test_files_of_an_older_version_have_patterns():
    inner = [
        keras.optimizers.SGD(rate, name=name) for name, rate in (("head", 0.1), ("proxies", 1.0), ("backbone", 0.01))
    ]
    old = keras.optimizers.OptimizerMap(inner[2], {"(.*/)?(linear)(_[^/]*)?/.*": inner[0], ".*proxies.*": inner[1]})
    config = {**GroupedOptimizer(old).get_config()}
    config["optimizer_map"] = keras.saving.serialize_keras_object(old)
    model = model_with(flow(), layer="linear")
    model.compile(GroupedOptimizer.from_config(config))
    assert model.optimizer.group_of(model.backbone.trainable_variables[0]) == "backbone"
    assert model.optimizer.group_of(model.head.trainable_variables[0]) == "head"


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("plain", [False, True])
def test_callbacks_that_set_rates(policy, plain, batch):
    """Keras asks a wrapper of half precision for the one rate that groups do not have."""
    keras.config.set_dtype_policy(policy)
    try:
        model = model_with(flow())
        if plain:
            model = model.embedder
        model.compile(optimizer(1e-3, 1e-2, 10.0, method="SGD"), **({"loss": SupCon()} if plain else {}))
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, mode="max", min_delta=1e9)
        model.fit(*batch, batch_size=6, epochs=2, callbacks=[halve], verbose=0)
        rates = [float(inner.learning_rate) for inner in inner_optimizers(model.optimizer)]
        np.testing.assert_allclose(rates, [1e-2 / 4, 1e-1 / 4, 1e-3 / 4], rtol=1e-5)
        model.fit(*batch, batch_size=6, epochs=2, callbacks=[plateau], verbose=0)
        rates = [float(inner.learning_rate) for inner in inner_optimizers(model.optimizer)]
        np.testing.assert_allclose(rates, [1e-2 / 40, 1e-1 / 40, 1e-3 / 40], rtol=1e-5)
    finally:
        keras.config.set_dtype_policy("float32")


def test_callbacks_cannot_set_rates_that_follow_a_schedule(batch):
    model = model_with(flow())
    model.compile(optimizer(steps=10))
    for callback in (keras.callbacks.ReduceLROnPlateau("loss"), keras.callbacks.LearningRateScheduler(lambda e, r: r)):
        with pytest.raises(ValueError, match=rf"`callbacks` holds {type(callback).__name__}.*schedule"):
            model.fit(*batch, batch_size=6, callbacks=[callback], verbose=0)
    with pytest.raises(ValueError, match="follow a schedule"):
        model.optimizer.learning_rate = 0.1


def test_clipping_knows_the_loss_scale(batch):
    """Half precision scales the loss, and the gradients with it: the bound holds for what is applied."""

    def step(clipnorm, scale):
        keras.utils.set_random_seed(0)
        model = model_with(flow())
        groups = optimizer(1.0, 1.0, 1.0, method="SGD", weight_decay=0.0, clipnorm=clipnorm)
        groups.loss_scale_factor = scale
        model.compile(groups)
        before = [v.numpy() for v in model.backbone.trainable_variables]
        model.fit(*batch, batch_size=6, verbose=0)
        after = [v.numpy() for v in model.backbone.trainable_variables]
        return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(before, after, strict=True)))

    free = step(None, None)
    np.testing.assert_allclose(step(None, 64.0), free, rtol=1e-4)
    np.testing.assert_allclose(step(free / 2, 64.0), free / 2, rtol=1e-4)
    np.testing.assert_allclose(step(2 * free, 64.0), free, rtol=1e-4)


def test_no_schedule_is_negative_past_its_last_step():
    for decay in ("linear", "cosine"):
        schedule = WarmUpDecay(1.0, steps=10, warmup=2, decay=decay)
        np.testing.assert_allclose([schedule(10), schedule(11), schedule(15), schedule(1000)], 0.0, atol=1e-6)


def test_saved_and_loaded_groups_go_on_as_before(batch, tmp_path):
    model = model_with(flow())
    model.compile(optimizer(1e-3, 1e-2, 10, steps=20, warmup=2, clipnorm=1.0, ema=0.9))
    model.fit(*batch, batch_size=6, epochs=3, shuffle=False, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert [o.name for o in again.optimizer.optimizers] == [o.name for o in model.optimizer.optimizers]
    for m in (model, again):
        m.fit(*batch, batch_size=6, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_clipping_bounds_the_gradient_of_a_group(batch):
    def step(clipnorm):
        keras.utils.set_random_seed(0)
        model = model_with(flow())
        model.compile(optimizer(1.0, 1.0, 1.0, method="SGD", weight_decay=0.0, clipnorm=clipnorm))
        before = [v.numpy() for v in model.backbone.trainable_variables]
        model.fit(*batch, batch_size=6, verbose=0)
        after = [v.numpy() for v in model.backbone.trainable_variables]
        return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(before, after, strict=True)))

    free = step(None)
    np.testing.assert_allclose(step(free / 2), free / 2, rtol=1e-4)
    np.testing.assert_allclose(step(free * 2), free, rtol=1e-4)


def test_the_average_is_swapped_in_and_out_bit_for_bit(batch):
    model = model_with(flow())
    model.compile(optimizer(1e-2, 1e-2, 1.0, ema=0.5))
    path = []
    for _ in range(3):
        model.train_on_batch(*batch)
        path.append(model.head.trainable_variables[0].numpy())
    expected = path[0]
    for value in path[1:]:
        expected = 0.5 * expected + 0.5 * value
    with averaged(model) as swapped:
        assert swapped
        np.testing.assert_allclose(model.head.trainable_variables[0], expected, atol=1e-6)
    np.testing.assert_array_equal(model.head.trainable_variables[0], path[-1])


def test_without_an_average_nothing_is_swapped():
    model = model_with(flow())
    model.compile(optimizer())
    with averaged(model) as swapped:
        assert not swapped


def test_schedules():
    linear = WarmUpDecay(2.0, steps=110, warmup=10)
    np.testing.assert_allclose([linear(0), linear(9), linear(60), linear(110)], [0.2, 2.0, 1.0, 0.0], atol=1e-6)
    assert np.isclose(WarmUpDecay(1.0, steps=100, decay="cosine")(50), 0.5)
    falls = WarmUpDecay(1.0, decay="step", every=10, factor=0.5)
    np.testing.assert_allclose([falls(9), falls(10), falls(25)], [1.0, 0.5, 0.25])
    flat = WarmUpDecay(1.0, warmup=2, decay="none")
    np.testing.assert_allclose([flat(0), flat(1), flat(99)], [0.5, 1.0, 1.0])
    late = WarmUpDecay(1.0, steps=20, delay=5, warmup=2)
    np.testing.assert_allclose([late(4), late(5), late(6)], [0.0, 0.5, 1.0])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(late))
    assert again.get_config() == late.get_config()


def test_the_decay_may_be_a_single_step():
    for decay in ("linear", "cosine"):
        schedule = WarmUpDecay(1.0, steps=11, warmup=6, delay=4, decay=decay)
        np.testing.assert_allclose([schedule(3), schedule(9), schedule(10), schedule(11)], [0, 1, 1, 0], atol=1e-6)


def test_the_schedule_of_a_resting_group_goes_on():
    """A backbone that is frozen for the first steps starts at the rate that the run has by then."""
    model = model_with(flow())
    model.compile(grouped := optimizer(1e-2, 1e-2, 10.0, steps=20, warmup=2))
    grouped.build(model.trainable_variables)
    resting = {variable.path: variable.numpy() for variable in model.backbone.trainable_variables}
    variables = model.trainable_variables
    for _ in range(3):
        grouped.apply([None if v.path in resting else tf.ones_like(v) for v in variables], variables)
    assert [int(inner.iterations) for inner in grouped.optimizers] == [3] * len(grouped.optimizers)
    assert int(grouped.iterations) == 3
    for variable in model.backbone.trainable_variables:
        np.testing.assert_array_equal(variable, resting[variable.path])
        assert np.isclose(grouped.rate_of(variable), 1e-2 * 17 / 18)
    assert np.isclose(grouped.rate_of(model.head.trainable_variables[0]), 1e-2 * 17 / 18)


def test_state_holders():
    plain = keras.optimizers.SGD()
    assert inner_optimizers(plain) == [plain]
    assert len(inner_optimizers(keras.optimizers.LossScaleOptimizer(optimizer()))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizer(method="Adagard"), "method"),
        (lambda: optimizer(proxy_factor=-1), "proxy_factor"),
        (lambda: WarmUpDecay(1.0, decay="linear"), "steps"),
        (lambda: WarmUpDecay(1.0, 10, warmup=6, delay=4), r"`steps` must be above warmup \+ delay = 10.*received 10"),
        (lambda: WarmUpDecay(1.0, 9, warmup=6, delay=4, decay="cosine"), "for decay='cosine'; received 9"),
        (lambda: WarmUpDecay(1.0, decay="step"), "every"),
        (lambda: WarmUpDecay(1.0, decay="step", every=0), "every.*received 0"),
        (lambda: WarmUpDecay(1.0, decay="step", every=-3), "every.*received -3"),
        (lambda: optimizer(backbone_rate=float("nan")), "backbone_rate.*finite.*nan"),
        (lambda: optimizer(head_rate="fast"), "head_rate.*finite number.*'fast'"),
        (lambda: optimizer(decay="step", steps=10), "decay_every.*received None"),
        (lambda: WarmUpDecay(1.0, decay="exp"), "decay"),
        (lambda: WarmUpDecay(float("nan"), decay="none"), "rate"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_proxies_have_no_weight_decay_and_the_flow_of_non_isotropy_the_rate_of_heads():
    """Only the direction of a proxy counts: a shorter one would just turn faster."""
    keras.utils.set_random_seed(0)
    embedder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5), heads.Linear(4)])
    nir = regularizers.NonIsotropy(4, depth=1, hidden=3, hidden_layers=1)
    model = MetricModel(embedder, ProxyAnchor(3), regularizers=[nir])
    grouped = optimizer(1e-2, 1e-2, 1.0, weight_decay=0.1)
    model.compile(grouped)
    grouped.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    grouped.apply([tf.zeros_like(variable) for variable in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        kept = np.array_equal(variable.numpy(), old)
        assert kept == ("proxies" in variable.path or not old.any()), variable.path
    assert {grouped.group_of(variable) for variable in nir.trainable_variables} == {"head"}

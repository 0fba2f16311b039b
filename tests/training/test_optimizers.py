import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import heads
from tf_detreg.losses.proxy_anchor import ProxyAnchor
from tf_detreg.training import MetricModel, WarmUpDecay, averaged, optimizer
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
    groups = optimizer(head="real_nvp|against")
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


def test_a_name_that_hides_the_group_is_refused():
    with pytest.raises(ValueError, match="backbone"):
        model_with(flow(), layer="linear").compile(optimizer())
    odd = flow(name="mine")
    with pytest.raises(ValueError, match="mine/"):
        model_with(odd).compile(optimizer())
    model_with(odd2 := flow(name="mine")).compile(optimizer(head=odd2))


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
    late = WarmUpDecay(1.0, steps=20, delay=5, warmup=2)
    np.testing.assert_allclose([late(4), late(5), late(6)], [0.0, 0.5, 1.0])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(late))
    assert again.get_config() == late.get_config()


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
        (lambda: WarmUpDecay(1.0, decay="step"), "every"),
        (lambda: WarmUpDecay(1.0, decay="step", every=-3), "every.*received -3"),
        (lambda: optimizer(backbone_rate=float("nan")), "backbone_rate.*finite.*nan"),
        (lambda: optimizer(head_rate="fast"), "head_rate.*finite numbers.*'fast'"),
        (lambda: optimizer(decay="step", steps=10), "decay_every.*received None"),
        (lambda: WarmUpDecay(1.0, decay="exp"), "decay"),
        (lambda: WarmUpDecay(float("nan"), decay="none"), "rate"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

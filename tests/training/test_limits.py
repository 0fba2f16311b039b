"""Arguments of optimizers, schedules and callbacks at their exact limits."""

import functools

import keras
import pytest

from tests.limits import NEXT, check
from tf_detreg import losses, training
from tf_detreg.analysis import embedding_map
from tf_detreg.training import averaging, schedules

STEP = functools.partial(training.optimizer, steps=10, decay="step", decay_every=5)
RISE = functools.partial(schedules.WarmUpDecay, 0.1, 10)


@pytest.mark.parametrize(
    ("call", "name", "allowed", "refused"),
    [
        (STEP, "backbone_rate", [0.0], [-NEXT]),
        (STEP, "head_rate", [0.0], [-NEXT]),
        (STEP, "proxy_factor", [0.0], [-NEXT]),
        (STEP, "weight_decay", [0.0], [-NEXT]),
        (STEP, "ema", [NEXT, 1 - NEXT, None], [0.0, 1.0]),
        (STEP, "epsilon", [NEXT, None], [0.0]),
        (STEP, "decay_every", [1], [0, -1, None]),
        (STEP, "layer_decay", [NEXT, 1.0], [0.0, 1 + NEXT]),
        (STEP, "clipnorm", [NEXT, None], [0.0]),
        (RISE, "warmup", [0], [-1]),
        (RISE, "delay", [0], [-1]),
        (functools.partial(schedules.WarmUpDecay, steps=10), "rate", [0.0], [-NEXT]),
        (functools.partial(embedding_map.sample, [0, 0, 1, 1, 1, 2]), "points", [1, 6], [0]),
        (functools.partial(embedding_map.sample, [0, 0, 1, 1, 1, 2], 2), "per_class", [1], [0]),
        (lambda shares: averaging.Averaging(last=2, shares=shares), "shares", [[0.0], [1 - NEXT]], [[-NEXT], [1.0]]),
    ],
)
def test_limits(call, name, allowed, refused):
    check(call, name, allowed, refused)


def test_limits_of_a_memory_of_batches():
    memory = functools.partial(losses.CrossBatchMemory, losses.Contrastive(), memory_size=4)
    check(memory, "batch_weight", [0.0, -1.0], [float("nan"), float("inf"), None])
    check(memory, "start", [0], [-1])
    check(functools.partial(losses.CrossBatchMemory, losses.Contrastive()), "memory_size", [1], [0])


def test_what_an_optimizer_of_each_group_is_made_of():
    made = training.optimizer(0.5, 0.25, proxy_factor=4, weight_decay=0.125, ema=0.75, epsilon=0.0625)
    found = {one.name: one for one in made.optimizers}
    assert {name: float(one.learning_rate) for name, one in found.items()} == {
        "head": 0.25,
        "proxies": 1.0,
        "backbone": 0.5,
    }
    assert {name: one.weight_decay for name, one in found.items()} == {"head": 0.125, "proxies": 0.0, "backbone": 0.125}
    for one in found.values():
        assert isinstance(one, keras.optimizers.AdamW) and (one.epsilon, one.use_ema, one.ema_momentum) == (
            0.0625,
            True,
            0.75,
        )
        assert one.ema_overwrite_frequency is None
    plain = training.optimizer(method="SGD")
    rates = {"head": 1e-3, "proxies": 0.1, "backbone": 1e-4}
    assert {one.name: float(one.learning_rate) for one in plain.optimizers} == pytest.approx(rates)
    assert not any(one.use_ema for one in plain.optimizers)
    assert {one.name: one.weight_decay for one in plain.optimizers} == {"head": 1e-4, "proxies": 0.0, "backbone": 1e-4}

"""Every class of the package that Keras can save: its configuration holds each argument, and makes the same again."""

import inspect
import json

import keras
import numpy as np
import pytest

import tf_detreg as dr
from tf_detreg import backbones, heads, losses, miners, regularizers, training
from tf_detreg.heads.conditioner import Conditioner
from tf_detreg.heads.field import Field
from tf_detreg.losses.loss_layer import LossLayer
from tf_detreg.training.groups import GroupMap
from tf_detreg.training.schedules import ScaledSchedule
from tools import public_api

KINDS = {key: kind for key, kind in keras.saving.get_custom_objects().items() if key.startswith("tf_detreg>")}
# What a wrong guess would be refused for.
CHOICES = {
    "distance": "squared",
    "average": "anchors",
    "reduction": "sum",
    "measure": "shifted",
    "projection": "always",
    "connection": "tanh",
    "activation": "sigmoid",
    "trace": "hutchinson",
    "solver": "dormand_prince",
    "negatives": "semi_hard",
    "positives": "hard",
    "part": "backbone",
    "divergence": "forward",
    "on": "batch",
    "rival_proxies": "own",
    "decay": "cosine",
    "initializer": "ones",
    "dtype": "float64",
    "name": "other",
    "miner": miners.Hard(),
    "loss": losses.Contrastive(power=1, miner=miners.SemiHard(0.3)),
    "num_classes": 5,
    "dim": 6,
    "seed": 3,
    "nu": 0.01,
    "power": 2,
    "cutoff": 0.25,
    "nonzero_loss_cutoff": 1.1,
    "margin": 0.15,
    "dropout": 0.25,
    "conditioner_dropout": 0.25,
    "ratio": 0.5,
    "steps": 40,
}


def small_embedder():
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), heads.RealNVP(4, depth=1, hidden=3)])


OWN = {
    backbones.ForeignBackbone: None,  # of other packages: tests/backbones/test_foreign.py
    backbones.PixelScaling: {"mode": "given", "factor": [2.0, 1.0, 1.0], "offset": [0.0, 0.5, 0.0]},
    backbones.TokenPool: {"mode": "patches", "prefix": 2},
    Field: {"dim": 4, "hidden": 3, "activation": "tanh", "scale_bound": 0.3},
    Conditioner: {"outputs": 4},
    heads.Dueling: {"main": heads.Linear(6), "rival": heads.ResidualMLP(6, blocks=1, hidden=2)},
    losses.Triplet: {"swap": True, "negatives": "all"},
    losses.FastAP: {"normalize": True},
    losses.NPairsMultilabel: {"miner": None},
    regularizers.HypersphericalEnergy: {"angular": True, "half": True},
    regularizers.LanguageGuidance: {"shape": [3, 4]},
    regularizers.PowerMean: {"power": -2.0},
    regularizers.Lipschitz: {"part": "backbone"},
    training.WarmUpDecay: {"rate": 0.5, "every": 7},
    training.GroupedOptimizer: {
        "optimizer_map": GroupMap(keras.optimizers.AdamW(1e-3, name="backbone"), {"head": keras.optimizers.SGD(0.1)}),
        "group_clipnorm": 2.0,
        "loss_scale_factor": 4.0,
        "layer_decay": 0.5,
    },
    training.MetricModel: {
        "loss": losses.ProxyAnchor(num_classes=3),
        "rival": heads.Linear(4),
        "rival_loss_weight": 0.5,
        "interpolation": training.Interpolation(0.3),
        "regularizers": [regularizers.Uniformity(weight=0.5)],
        "dtype": "float32",
    },
    GroupMap: None,  # inside a GroupedOptimizer
    ScaledSchedule: {"schedule": training.WarmUpDecay(1.0, steps=9), "factor": 0.5},
}
# What a configuration holds in another form.
ELSEWHERE = {
    regularizers.LanguageGuidance: {"texts"},  # a weight, of this `shape`
    heads.Dueling: {"dtype"},  # that of `main`
    training.GroupedOptimizer: {"optimizer_map"},
}


def arguments(kind):
    """Arguments of a class, none of them the default."""
    given = dict(OWN.get(kind) or {})
    if kind is training.MetricModel:
        given["embedder"] = small_embedder()
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        if name == "trainable":
            given[name] = False
        elif name == "texts" or (name == "distance" and getattr(kind, "default_distance", "") is None):
            continue
        elif name == "distance" and default == "squared":
            given[name] = "cosine"
        elif name in CHOICES:
            given[name] = CHOICES[name]
        elif isinstance(default, bool):
            given[name] = not default
        elif isinstance(default, int):
            given[name] = default + 1
        elif isinstance(default, float):
            given[name] = default * 0.5 + 0.125
        else:
            raise AssertionError(f"{kind.__name__}({name}={default!r}) needs a row in CHOICES or OWN.")
    return given


def plain(value):
    """What a configuration holds of an argument."""
    if isinstance(value, keras.layers.Layer | keras.losses.Loss | miners.Miner | training.WarmUpDecay):
        return keras.saving.serialize_keras_object(value)["config"]
    if isinstance(value, dict) and "config" in value:
        return value["config"]
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("key", KINDS, ids=lambda key: key.removeprefix("tf_detreg>"))
def test_a_configuration_holds_every_argument_and_makes_the_same_again(key):
    kind = KINDS[key]
    if OWN.get(kind, {}) is None:
        return
    given = arguments(kind)
    made = kind(**given)
    config = made.get_config()
    for name in inspect.signature(kind).parameters.keys() - ELSEWHERE.get(kind, set()) - {"kwargs"}:
        assert name in config, name
    for name, value in given.items():
        held = config.get(name)
        if name in ELSEWHERE.get(kind, set()) or isinstance(value, keras.Model | list):
            continue
        if name == "dtype":
            held = held["config"]["name"] if isinstance(held, dict) else held
        if name == "initializer":
            held = held["class_name"].lower()
        assert plain(held) == plain(value), name
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is kind
    assert json.dumps(keras.saving.serialize_keras_object(again), sort_keys=True) == json.dumps(saved, sort_keys=True)


def test_every_public_class_that_a_model_is_made_of_is_registered():
    """A class that is not cannot be loaded in a new process."""
    bases = (heads.Head, losses.PairLoss, losses.ProxyLoss, miners.Miner, regularizers.Regularizer, LossLayer)
    of_keras = (
        *(keras.layers.Layer, keras.losses.Loss, keras.optimizers.Optimizer, miners.Miner),
        keras.optimizers.schedules.LearningRateSchedule,
    )
    names = {line.partition("(")[0] for line in public_api.text().splitlines()}
    public = {
        getattr(getattr(dr, package), name)
        for package, _, name in (n.partition(".") for n in names if n.count(".") == 1)
    }
    made_of = {kind for kind in public if inspect.isclass(kind) and issubclass(kind, of_keras)} - set(bases)
    assert len(made_of) > 50 and made_of <= set(KINDS.values())


@pytest.mark.parametrize("activation", [keras.activations.gelu, "silu", keras.layers.LeakyReLU(0.2)])
def test_heads_with_an_activation_that_is_an_object_are_saved(activation, tmp_path):
    for kind in (heads.RealNVP, heads.ResidualMLP):
        model = keras.Sequential([keras.Input((5,)), kind(4, hidden=3, activation=activation, connection="tanh")])
        x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
        for number in range(2):  # what was loaded is saved once more
            model.save(tmp_path / f"{number}.keras")
            loaded = dr.load(tmp_path / f"{number}.keras")
            np.testing.assert_array_equal(loaded(x), model(x))
            model = loaded

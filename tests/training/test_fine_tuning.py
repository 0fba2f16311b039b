"""Layer-wise rates, averages of weights, and that a run with any of them resumes to the bit."""

import json

import keras
import numpy as np
import pytest

from tests.backbones.test_fine_tuning import transformer
from tf_detreg import backbones, callbacks, datasets, training
from tf_detreg.training import averaging, checkpoint

SMALL = {
    "data": "digits",
    "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
    "head": {"name": "Linear", "dim": 8},
    "classes": 5,
    "images": 4,
    "epochs": 3,
}


def few():
    """A part of the digits."""
    return datasets.Splits(*(part.subset(np.arange(0, len(part), 12)) for part in datasets.digits()))


def state(run):
    with np.load(checkpoint.checkpoints(run.directory / "checkpoints")[-1]) as file:
        return {name: file[name] for name in file.files if name != "notes"}


class Stop(keras.callbacks.Callback):
    """Ends a run in the middle of its third epoch, as Ctrl-C would."""

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 1:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


@pytest.fixture
def tiny(monkeypatch):
    """A name for a small transformer, as a preset has one."""
    build = backbones.build

    def named(backbone, image_size, **options):
        if backbone != "tiny":
            return build(backbone, image_size, **options)
        images = keras.Input((*datasets.digits().train.image_size, 3))
        return backbones.restrict(
            keras.Model(images, transformer(blocks=2)(keras.layers.Resizing(8, 8)(images))), **options
        )

    monkeypatch.setattr(backbones, "build", named)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "backbone": {"name": "small_cnn", "width": 4, "blocks": 2, "freeze_until": 1, "freeze_batch_norm": True},
            "optimizer": {"layer_decay": 0.5, "ema": 0.9, "backbone_delay_epochs": 0.5, "warmup_epochs": 0.5},
            "averaging": {"last": 3},
            "epochs": 4,
        },
        pytest.param(
            {
                "backbone": {"name": "tiny", "lora_rank": 2},
                "optimizer": {"layer_decay": 0.75, "backbone_rate": 1e-2, "clipnorm": 1.0},
                "unfreezing": {"start": 1, "stages": 2},
                "averaging": {"last": 2, "shares": [0.5]},
                "epochs": 4,
                "prefetch_to_device": 1,
            },
            marks=pytest.mark.slow,
            id="lora",
        ),
    ],
    ids=["cnn", None],
)
def test_an_interrupted_run_ends_as_an_unbroken_one(changes, tmp_path, tiny):
    config = training.RunConfig.from_dict({**SMALL, **changes})
    unbroken = training.train(config, tmp_path / "a", splits=few(), verbose=0)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "b", splits=few(), verbose=0, callbacks=[Stop()])
    resumed = training.train(config, tmp_path / "b", resume=True, splits=few(), verbose=0)
    ours, theirs = state(resumed), state(unbroken)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for a, b in zip(resumed.embedder.get_weights(), unbroken.embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed.evaluation["test"]["metrics"] == unbroken.evaluation["test"]["metrics"]
    said = json.loads((resumed.directory / "averaging.json").read_text())
    assert said == json.loads((unbroken.directory / "averaging.json").read_text())
    assert said["candidates"][said["chosen"]] == max(said["candidates"].values())
    assert len(said["candidates"]) == 2 + 2 * len(config.averaging.get("shares", ()))
    assert len(checkpoint.checkpoints(resumed.directory / "checkpoints")) == config.averaging["last"]
    if "lora_rank" in config.backbone:
        assert not any("lora" in weight.path for weight in resumed.embedder.weights)
        assert (resumed.directory / "adapter.npz").stat().st_size < (resumed.directory / "best.keras").stat().st_size
        fresh = training.assemble(config, few()).embedder
        backbones.load_adapter(fresh, resumed.directory / "adapter.npz")
        x = next(iter(few().test.indexed(8)))[0]
        from tf_detreg.models import load

        np.testing.assert_allclose(fresh(x), load(resumed.directory / "best.keras")(x), atol=1e-4)


def test_each_block_has_its_rate():
    config = training.RunConfig.from_dict({**SMALL, "optimizer": {"layer_decay": 0.5, "backbone_rate": 1e-2}})
    model = training.assemble(config, few()).model
    rates = {weight.path.split("_")[0]: model.optimizer.rate_of(weight) for weight in model.backbone.trainable_weights}
    np.testing.assert_allclose([rates[name] for name in ("block1", "block2", "features")], [2.5e-3, 5e-3, 1e-2])
    assert {model.optimizer.group_of(weight) for weight in model.backbone.trainable_weights} == {"backbone"}
    assert {model.optimizer.group_of(weight) for weight in model.head.trainable_weights} == {"head"}


def plain(layer_decay, **options):
    keras.utils.set_random_seed(0)
    net = backbones.small_cnn(16, width=2)
    model = keras.Sequential([keras.Input((16, 16, 3)), net, keras.layers.Dense(3)])
    model.compile(training.optimizer(1e-2, layer_decay=layer_decay, **options), keras.losses.MeanSquaredError())
    x = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    before = [weight.numpy() for weight in net.trainable_weights]
    model.fit(x, np.ones((4, 3), "float32"), batch_size=4, epochs=1, verbose=0)
    moved = [np.abs(a - b.numpy()).max() for a, b in zip(before, net.trainable_weights, strict=True)]
    return model, [weight.path.split("_")[0] for weight in net.trainable_weights], np.array(moved)


def test_layer_decay_in_plain_keras(tmp_path):
    """Adam's first step has the length of the learning rate. Here even the head counts as the topmost block."""
    model, blocks, moved = plain(0.5, method="Adam")
    longest = [moved[[name == block for name in blocks]].max() for block in ("block1", "block2", "block3")]
    np.testing.assert_allclose(longest, [1.25e-3, 2.5e-3, 5e-3], rtol=0.05)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.layer_decay == 0.5
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_clipping_is_of_the_backbone_as_a_whole():
    """With SGD and one rate for all blocks in effect, the blocks' optimizers take the step of a single one."""
    _, _, alone = plain(1.0, method="SGD", clipnorm=1e-3, weight_decay=0.0)
    _, _, split = plain(1 - 1e-7, method="SGD", clipnorm=1e-3, weight_decay=0.0)
    np.testing.assert_allclose(split, alone, rtol=1e-3)


@pytest.mark.parametrize("value", [0, 1.1, "high"])
def test_layer_decay_out_of_range(value):
    with pytest.raises(ValueError, match="`layer_decay` must be"):
        training.optimizer(layer_decay=value)


def test_a_soup_and_a_mixture_in_plain_keras():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0].item()))
    start = model.get_weights()[0].item()
    average = callbacks.WeightAveraging(last=2, share=0.25, backbone=model)
    model.fit(np.ones((4, 1)), np.full((4, 1), 9.0), epochs=3, verbose=0, callbacks=[average, watch])
    np.testing.assert_allclose(model.get_weights()[0].item(), 0.25 * np.mean(seen[1:]) + 0.75 * start, rtol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"averaging": {}}, "must say `last`, `shares` or both"),
        ({"averaging": {"last": 1}}, "`last` must be 0, or 2 or more"),
        ({"averaging": {"shares": [1.5]}}, "`shares` must be a number in"),
        ({"averaging": {"first": 2}}, "does not take these arguments"),
        ({"averaging": {"shares": [0.5]}}, "small_cnn, which has no such weights"),
        ({"features": True, "backbone": {"name": "small_cnn", "lora_rank": 2}}, "be false with lora_rank of backbone"),
        ({"features": True, "optimizer": {"layer_decay": 0.75}}, "be false with layer_decay of optimizer"),
        ({"optimizer": {"layer_decay": 2}}, "`layer_decay` must be"),
        ({"backbone": {"name": "small_cnn", "lora_rank": 2}}, "`lora_rank` needs a backbone with dense layers"),
        ({"jit_compile": 1}, "`jit_compile` must be true or false"),
        ({"prefetch_to_device": -1}, "`prefetch_to_device` must be a whole number, 0 or more"),
    ],
)
def test_options_that_cannot_be_met(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.train(training.RunConfig.from_dict({**SMALL, **changes}), tmp_path / "run", splits=few(), verbose=0)
    assert not (tmp_path / "run" / "config.json").exists()


def test_averaging_needs_validation_classes(tmp_path):
    parts = few()
    config = training.RunConfig.from_dict({**SMALL, "averaging": {"last": 2}})
    with pytest.raises(ValueError, match="be chosen on validation classes"):
        training.train(
            config, tmp_path / "run", splits=parts._replace(validation=parts.validation.subset([])), verbose=0
        )


@pytest.mark.usefixtures("eager")
def test_a_run_of_an_older_version_goes_on(tmp_path):
    """Its configuration lacks the entries that have been added since."""
    config = training.RunConfig.from_dict({**SMALL, "epochs": 1})
    training.train(config, tmp_path / "run", splits=few(), verbose=0)
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    for name in ("averaging", "jit_compile", "prefetch_to_device"):
        del record["config"][name]
    path.write_text(json.dumps(record))
    assert training.train(config, tmp_path / "run", resume=True, splits=few(), verbose=0).finished


def test_averages_are_means():
    several = [[np.array([1.0, 2.0], "float32")], [np.array([3.0, 2.0], "float32")]]
    assert averaging.uniform(several)[0].tolist() == [2.0, 2.0]
    assert averaging.mixed(several[0], several[1], 0.25)[0].tolist() == [2.5, 2.0]


def test_the_command_passes_fine_tuning_on(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from tf_detreg.cli import app

    found = {}
    monkeypatch.setattr(training, "train", lambda config, run, **options: found.update(config=config) or 1 / 0)
    words = (
        "train digits --layer-decay 0.75 --freeze-until 2 --lora-rank 4 --soup 3 --precision mixed_bfloat16 "
        "--jit-compile --steps-per-execution 8 --prefetch-to-device 2 --no-deterministic"
    )
    CliRunner().invoke(app, [*words.split(), "--run", str(tmp_path)])
    config = found["config"]
    assert config.optimizer["layer_decay"] == 0.75 and config.averaging == {"last": 3}
    assert config.backbone["freeze_until"] == 2 and config.backbone["lora_rank"] == 4
    assert (config.precision, config.jit_compile, config.steps_per_execution) == ("mixed_bfloat16", True, 8)
    assert config.prefetch_to_device == 2 and config.deterministic is False

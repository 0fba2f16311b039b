"""A run on a preset's folder, from the command line: at the preset's size, with its weights, and on its features."""

import importlib.util
import json
import shutil

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.backbones import hub_presets
from tests.backbones.hub_presets import SIZE
from tests.pictures import color_photos
from tf_detreg import backbones, cli, training
from tf_detreg.analysis import runs

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub")
SMALL = ["--epochs", "1", "--classes", "3", "--images", "2", "--dim", "8", "--loss", "SupCon", "--head", "Linear"]


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "dinov2"
    hub_presets.save("dinov2", folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return color_photos(tmp_path_factory.mktemp("photos"), 40, 48)


def train(*arguments):
    result = CliRunner().invoke(cli.app, ["train", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_takes_size_scaling_and_weights_of_the_preset(preset, photos, tmp_path):
    assert "R@1" in train(
        photos, "--run", tmp_path / "run", "--backbone", f"hub:{preset}", *SMALL, "--image-size", SIZE
    )
    run = training.load_run(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["backbone"]["name"] == f"hub:{preset}"
    assert run.embedder.input_shape == (None, SIZE, SIZE, 3)
    # What was saved computes what was evaluated, position embeddings included.
    images = np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    untrained = backbones.build(f"hub:{preset}")(images)
    trained = run.embedder.layers[0](images)
    assert 0 < np.abs(np.asarray(trained) - untrained).max() < 0.5


def test_without_a_size_images_have_the_presets(preset, photos):
    config = training.RunConfig.from_dict({"data": str(photos), "backbone": f"hub:{preset}"})
    splits = training.assembly.load_splits(config)
    assert splits.train.image_size in (SIZE, (SIZE, SIZE))
    other = config.replace(data={"name": "folder", "path": str(photos), "image_size": 24})
    assert training.assembly.load_splits(other).train.image_size in (24, (24, 24))


def test_a_run_on_features_is_made_of_the_frozen_preset(preset, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path / "cache"))
    train(photos, "--run", tmp_path / "run", "--backbone", preset, "--features", *SMALL, "--image-size", SIZE)
    backbone = training.load_run(tmp_path / "run").embedder.layers[0]
    images = np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_allclose(backbone(images), backbones.build(f"hub:{preset}")(images), atol=1e-5)


def test_layers_are_unfrozen_inside_a_preset(preset):
    model = backbones.build(f"hub:{preset}", trainable=False)
    assert not model.trainable_weights
    half = backbones.unfreeze(model, 0.5)
    assert 0 < half < backbones.unfreeze(model, 1.0)
    positions = next(weight for weight in model.weights if weight.name == "position_embeddings")
    assert not positions.trainable  # stored only; those that are computed with do train


def test_train_says_which_backbone_it_took_and_how_to_compare(photos, monkeypatch):
    def stop(config, run, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    said = CliRunner().invoke(cli.app, ["train", str(photos)]).output
    assert "Backbone    " in said and "tf-detreg backbones" in said
    said = CliRunner().invoke(cli.app, ["train", str(photos), "--backbone", "small_cnn"]).output
    assert "tf-detreg backbones" not in said


def test_weights_of_a_network_by_name_can_be_asked_for(photos, monkeypatch):
    seen = []

    def stop(config, run, **options):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    CliRunner().invoke(cli.app, ["train", str(photos), "--backbone", "ResNet50", "--weights", "imagenet"])
    assert seen[0].backbone == {"name": "ResNet50", "weights": "imagenet", "freeze_batch_norm": True}


def test_mixed_precision(preset):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = backbones.build(f"hub:{preset}")(np.full((1, SIZE, SIZE, 3), 99.0, "float32"))
    finally:
        keras.config.set_dtype_policy(before)
    assert str(found.dtype.name) == "bfloat16" and np.isfinite(np.asarray(found, "float32")).all()


@pytest.mark.parametrize(
    "recipe, part, frozen",
    [
        ({"name": "efficientnet_lite0", "freeze_batch_norm": True}, {"name": "hub:resnet_50_imagenet"}, True),
        ({"name": "small_cnn"}, {"name": "ResNet50", "weights": "imagenet"}, True),
        ({"name": "ResNet50", "freeze_batch_norm": False}, {"name": "hub:resnet_50_imagenet"}, False),
        ({"name": "small_cnn"}, {"name": "ResNet50"}, None),
        ({"name": "small_cnn"}, {"name": "hub:resnet_50_imagenet", "weights": "random"}, None),
        ({"name": "hub:mine", "lora_rank": 2}, {"name": "hub:mine", "lora_rank": 2}, None),
    ],
)
def test_another_pretrained_backbone_keeps_its_batch_normalization(photos, tmp_path, monkeypatch, recipe, part, frozen):
    taken = []
    monkeypatch.setattr(training, "train", lambda config, *_, **__: taken.append(config))
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"data": str(photos), "backbone": recipe}))
    options = ["--backbone", part["name"], *(["--weights", part["weights"]] if "weights" in part else [])]
    CliRunner().invoke(cli.app, ["train", "--recipe", str(file), "--run", str(tmp_path / "run"), *options])
    assert taken[0].backbone.get("freeze_batch_norm") is frozen


def test_a_run_is_reported_without_its_preset(preset, photos, tmp_path):
    moved = tmp_path / "preset"
    shutil.copytree(preset, moved)
    run = tmp_path / "run"
    train(photos, "--run", run, "--backbone", f"hub:{moved}", "--features", *SMALL, "--image-size", SIZE)
    shutil.rmtree(moved)
    _, _, reports = runs.compare_run(training.load_run(run))
    assert list(reports) == ["raw pixels", "after training"]


def test_a_folder_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(ValueError, match=r"'hub:zzz/qqq'\. No folder of that name is seen from"):
        backbones.build("hub:zzz/qqq")
    with pytest.raises(ValueError, match=r"Near are: dinov2_small"):
        backbones.build("hub:dinov2_smal")

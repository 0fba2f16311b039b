"""Comparing backbones on photos: numbers, failures, cache, the command and the line that it prints."""

import json
import shlex

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.pictures import color_photos
from tf_detreg import cli, retrieval
from tf_detreg.experiments import candidates
from tf_detreg.training import RunConfig, assembly

SIZE = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return color_photos(tmp_path_factory.mktemp("photos"), 20, 24)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TF_DETREG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def compared(photos):
    names = ["small_cnn@16", "hub:no_such_preset", "nothing_at_all"]
    return candidates.compare(str(photos), names, epochs=2, image_size=32, progress=False)


def test_numbers_are_those_of_the_features(compared, photos, cache):
    (one,) = compared.candidates
    assert (one.name, one.image_size, one.weights) == ("small_cnn", (SIZE, SIZE), None)
    config = RunConfig.from_dict({"data": str(photos), "image_size": SIZE})
    splits = assembly.load_splits(config)
    keras.utils.set_random_seed(0)
    backbone = assembly.build_backbone(config, (SIZE, SIZE))
    validation = splits.validation
    features = np.concatenate([backbone(images, training=False) for images, _ in validation.ordered(8)])
    report = retrieval.evaluate(features, validation.labels, k=1, progress=False)
    assert one.frozen.recall == pytest.approx(report.metrics["recall@1"])
    assert one.frozen.map_at_r == pytest.approx(report.metrics["map@r"], abs=1e-3)
    assert one.frozen.recall_interval[0] <= one.frozen.recall <= one.frozen.recall_interval[1]
    assert one.parameters == backbone.count_params() and one.features == backbone.output_shape[-1]
    assert one.linear is not None and one.best is one.linear and one.images_per_second > 0
    assert (compared.images, compared.classes) == (len(validation), validation.num_classes)
    assert list((cache / "features").iterdir())


def test_what_cannot_be_loaded_is_named_and_the_others_go_on(compared):
    assert set(compared.failures) == {"hub:no_such_preset", "nothing_at_all"}
    assert "be a preset of keras-hub" in compared.failures["hub:no_such_preset"]
    assert "`backbone` must" in compared.failures["nothing_at_all"]


def test_a_later_run_on_features_finds_them_in_the_cache(compared, photos, cache, monkeypatch):
    from tf_detreg.datasets import feature_cache
    from tf_detreg.training import stages

    config = candidates.candidate_config(str(photos), "small_cnn@16").replace(classes=4, images=2)
    monkeypatch.setattr(feature_cache._Store, "claim", lambda store: pytest.fail("features are computed again"))
    splits = assembly.load_splits(config)
    data = stages.load_data(config, _place(), splits._replace(test=splits.validation))
    stages.build_embedder(data)


def _place():
    from tf_detreg.training import distribution

    return distribution.open_place("")


def test_sizes_in_8_bits_are_near_those_of_a_file(tmp_path):
    from tf_detreg import backbones, export

    model = backbones.small_cnn(SIZE, width=32)
    written = export.litert(model, tmp_path / "m.tflite", "dynamic").stat().st_size
    assert 0.75 * written < candidates.int8_bytes(model) < written


@pytest.mark.parametrize(
    "name, part, size",
    [
        ("small_cnn", {"name": "small_cnn"}, 64),
        ("hub:dinov2_small@224", {"name": "hub:dinov2_small", "freeze_batch_norm": True}, 224),
        ("ResNet50", {"name": "ResNet50", "weights": "imagenet", "freeze_batch_norm": True}, 64),
        ("efficientnet_lite0@96", {"name": "efficientnet_lite0", "weights": "imagenet", "freeze_batch_norm": True}, 96),
    ],
)
def test_a_candidate_is_a_run_with_pretrained_weights(name, part, size):
    config = candidates.candidate_config("photos", name, 64)
    assert (config.backbone, config.image_size, config.data) == (part, size, {"name": "photos"})


def made(name, recall, speed, width=0.05):
    measured = candidates.Measured(recall, (recall - width, recall + width), recall / 2, (0.0, 1.0))
    return candidates.Candidate(name, None, (224, 224), 384, 22_000_000, 22.5, speed, measured)


def test_the_fastest_in_the_interval_of_the_best_is_named(tmp_path):
    found = (made("hub:large", 0.80, 2.0), made("hub:small", 0.76, 9.0), made("tiny", 0.60, 99.0))
    comparison = candidates.Comparison("my photos", 40, 10, 0, found, {})
    assert comparison.cheapest().name == "hub:small"
    line = comparison.train_line(found[0])
    assert shlex.split(line)[2:] == ["my photos", "--backbone", "hub:large", "--image-size", "224"]
    assert comparison.rows()[0]["R@1"] == "80.0 [75.0, 85.0]"
    numbers, picture = comparison.save(tmp_path / "out")
    assert json.loads(numbers.read_text())["candidates"][1]["name"] == "hub:small"
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert candidates.Comparison("x", 0, 0, 0, (), {}).cheapest() is None


def test_bad_input(photos, tmp_path):
    with pytest.raises(ValueError, match="must differ"):
        candidates.compare(str(photos), ["small_cnn", "small_cnn"])
    with pytest.raises(ValueError, match="`epochs`"):
        candidates.compare(str(photos), ["small_cnn"], epochs=-1)
    with pytest.raises((ValueError, OSError), match="nowhere"):
        candidates.compare(str(tmp_path / "nowhere"), ["small_cnn"], image_size=SIZE)


def test_the_command_prints_a_table_and_the_line_to_go_on_with(photos, tmp_path):
    arguments = ["backbones", str(photos), "small_cnn@16", "no_such_net", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "R@1" in result.output and "Left out    no_such_net" in result.output
    assert f"tf-detreg train {shlex.quote(str(photos))} --backbone small_cnn --image-size 16" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"backbones.json", "backbones.png"}
    with pytest.raises(ValueError, match="Not one of the backbones"):
        CliRunner().invoke(cli.app, ["backbones", str(photos), "no_such_net"], catch_exceptions=False)


def test_a_side_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match="`image_size` must be a whole number, 1 or more; received 0"):
        candidates.candidate_config("photos", "hub:dinov2_small@0")

"""Presets of keras-hub by name: what they compute, at which size, and what is said of bad ones, without a network."""

import importlib.util
import json
import logging
import pathlib
import shutil

import keras
import numpy as np
import pytest

from tests.backbones import hub_presets
from tests.backbones.hub_presets import OFFSET, SCALE, SIZE
from tf_detreg import backbones, load
from tf_detreg.backbones.positions import interpolate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub")


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """name -> (folder, the model that was saved to it)"""
    root = tmp_path_factory.mktemp("presets")
    return {name: (root / name, hub_presets.save(name, root / name)) for name in hub_presets.MAKERS}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")


def given(model, images):
    """Images as a model of keras-hub takes them: some want a dictionary."""
    return {next(iter(model.input)): images} if isinstance(model.input, dict) else images


def expected(name, saved, folder, images):
    """Features as keras-hub's own classes compute them, from its own image converter."""
    import keras_hub

    scaled = keras_hub.layers.ImageConverter.from_preset(str(folder))(images)
    if name == "siglip":
        return saved.get_vision_embeddings(scaled)
    if name in ("clip", "metaclip2"):
        found = saved.vision_encoder({"images": scaled})[:, 0]
        return saved.vision_post_layer_norm(found) if name == "metaclip2" else found
    found = np.asarray(saved(given(saved, scaled)))
    if found.ndim == 4:
        return found.mean(axis=(1, 2))
    return found.mean(axis=1) if name == "swin" else found[:, 0]


@pytest.mark.parametrize("name", hub_presets.MAKERS)
def test_features_are_keras_hubs(presets, images, name):
    folder, saved = presets[name]
    model = backbones.build(f"hub:{folder}")  # size, scaling and pooling are the preset's
    assert model.input_shape[1:] == (SIZE, SIZE, 3) and model.output_shape == (None, hub_presets.MAKERS[name][1])
    np.testing.assert_allclose(model(images), expected(name, saved, folder, images), atol=2e-5)


def test_pixels_are_scaled_as_the_converter_does(presets, images):
    import keras_hub

    folder, _ = presets["vit"]
    theirs = keras_hub.layers.ImageConverter.from_preset(str(folder))(images)
    ours = backbones.build(str(folder)).get_layer("scaling")
    np.testing.assert_allclose(ours(images), theirs, atol=1e-5)
    again = type(ours).from_config(ours.get_config())
    np.testing.assert_array_equal(again(images), ours(images))
    np.testing.assert_allclose(ours(images), images * np.array(SCALE) + OFFSET, atol=1e-4)


@pytest.mark.parametrize(
    "name, pooling, wanted",
    [
        ("vit", "patches", lambda x: x[:, 1:].mean(1)),
        ("deit", "patches", lambda x: x[:, 2:].mean(1)),
        ("dinov2", "patches", lambda x: x[:, 3:].mean(1)),
        ("dinov3", "class+patches", lambda x: np.concatenate([x[:, 0], x[:, 3:].mean(1)], axis=1)),
        ("dinov2", "avg", lambda x: x.mean(1)),
    ],
)
def test_registers_and_class_tokens_are_no_patches(presets, images, name, pooling, wanted):
    folder, saved = presets[name]
    scaled = (images * np.array(SCALE) + OFFSET).astype("float32")
    tokens = np.asarray(saved(given(saved, scaled)))
    found = backbones.build(str(folder), pooling=pooling)(images)
    np.testing.assert_allclose(found, wanted(tokens), atol=2e-5)


def test_the_towers_of_two_tower_models_pool_as_they_were_trained(presets, images):
    scaled = (images * np.array(SCALE) + OFFSET).astype("float32")
    for name in ("clip", "metaclip2"):
        folder, saved = presets[name]
        found = backbones.build(str(folder), pooling="projection")(images)
        np.testing.assert_allclose(found, saved.get_vision_embeddings(scaled), atol=2e-5)
    folder, saved = presets["siglip"]
    encoder = saved.vision_encoder
    tokens = keras.Model(encoder.inputs, encoder.post_layer_norm.output)([scaled])
    assert tokens.shape[1] == 16  # keras-hub's symbolic shape has 17
    found = backbones.build(str(folder), pooling="patches")(images)
    np.testing.assert_allclose(found, np.mean(tokens, axis=1), atol=2e-5)
    # Given as an object, the vision tower is taken too.
    found = backbones.build(saved, image_size=SIZE)(scaled)
    np.testing.assert_allclose(found, saved.get_vision_embeddings(scaled), atol=2e-5)


def test_position_embeddings_are_interpolated_over_height_and_width():
    rows, columns = np.mgrid[:4, :6].astype("float32")
    grid = np.stack([rows, columns], axis=-1).reshape(1, 24, 2)
    positions = np.concatenate([np.full((1, 2, 2), 9.0), grid], axis=1)
    same = interpolate(positions, 2, (4, 6), (4, 6))
    np.testing.assert_allclose(same, positions, atol=1e-6)
    moved = interpolate(positions, 2, (4, 6), (8, 12))
    assert moved.shape == (1, 2 + 96, 2)
    np.testing.assert_array_equal(moved[:, :2], positions[:, :2])
    inside = moved[0, 2:].reshape(8, 12, 2)[3:-3, 3:-3]
    # Twice as fine a grid, of the same centers.
    np.testing.assert_allclose(inside[..., 0], (np.mgrid[:8, :12][0][3:-3, 3:-3] + 0.5) / 2 - 0.5, atol=0.02)
    np.testing.assert_allclose(inside[..., 1], (np.mgrid[:8, :12][1][3:-3, 3:-3] + 0.5) / 2 - 0.5, atol=0.02)


def test_another_size_equals_keras_hubs_interpolation_where_it_has_one(presets):
    import keras_hub

    pictures = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    scaled = (pictures * np.array(SCALE) + OFFSET).astype("float32")
    for name in ("dinov2", "dinov3"):
        folder, _ = presets[name]
        theirs = keras_hub.models.Backbone.from_preset(str(folder), image_shape=(64, 64, 3))
        found = backbones.build(str(folder), 64)(pictures)
        wanted = theirs(given(theirs, scaled))[:, 0]
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize(
    "name, size, prefix",
    [
        ("vit", (64, 16), 1),
        ("deit", (24, 48), 2),
        ("clip", (64, 64), 1),
        ("metaclip2", (16, 16), 1),
        ("siglip", (64, 64), 0),
    ],
)
def test_another_size_interpolates_positions_and_keeps_the_rest(presets, name, size, prefix):
    folder, saved = presets[name]
    saved = backbones.families.vision_tower(saved)
    moved = next(x for x in backbones.build(str(folder), size).layers if isinstance(x, backbones.ForeignBackbone)).body
    grid, compared = (size[0] // 8, size[1] // 8), 0
    for old, new in zip(saved.weights, moved.weights, strict=True):
        if old.name == "position_ids":
            np.testing.assert_array_equal(new, np.arange(prefix + grid[0] * grid[1])[None])
        elif "position_embedding" in old.path:
            np.testing.assert_allclose(new, interpolate(np.asarray(old), prefix, (4, 4), grid), atol=1e-6)
            compared += 1
        else:
            np.testing.assert_array_equal(old, new)
    assert compared == 1


def test_sizes_that_need_not_be_square(presets):
    for name in ("vit", "deit", "resnet"):
        model = backbones.build(str(presets[name][0]), (40, 24))
        assert np.isfinite(model(np.zeros((1, 40, 24, 3)))).all()


def test_random_weights_on_request(presets, images):
    folder, _ = presets["vit"]
    first, second = (np.asarray(backbones.build(str(folder), weights=w)(images)) for w in (None, "random"))
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(first, backbones.build(str(folder), weights="imagenet")(images))


def test_names_are_known_without_a_download():
    found = {preset.name: preset for preset in backbones.presets()}
    assert {"hub:dinov2_small", "hub:siglip2_base_patch16_224", "hub:clip_vit_base_patch32"} <= found.keys()
    assert not [name for name in found if "bert" in name or "gemma3_" in name or "sam_" in name]
    about = backbones.describe("hub:dinov2_small")
    assert about.architecture == "DINOV2Backbone" and about.parameters == 22_582_656
    assert str(about) == "hub:dinov2_small: 22.6 M parameters, about 90 MB"
    sizes = [preset.parameters for preset in backbones.presets("dinov")]
    assert sizes == sorted(sizes) and len(sizes) >= 8


def test_a_folder_is_described_by_its_files(presets):
    folder, saved = presets["clip"]
    about = backbones.describe(str(folder))
    assert about.architecture == "CLIPVisionEncoder" and about.parameters == saved.count_params()
    assert backbones.preset_image_size(f"hub:{folder}") == (SIZE, SIZE)
    assert backbones.preset_image_size("small_cnn") is None


def test_a_folder_in_the_data_folder_is_found(presets, monkeypatch):
    folder, _ = presets["vit"]
    monkeypatch.setenv("TF_DETREG_DATA", str(folder.parent))
    assert backbones.build("hub:vit").input_shape[1] == SIZE


def sentence(name, *arguments, kind=ValueError, **options):
    """What `build` says, which must be one paragraph without a traceback's lines."""
    with pytest.raises(kind) as caught:
        backbones.build(name, *arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600, text
    return text


def test_names_that_are_none():
    assert "dinov2_small" in sentence("hub:dinov2_smal")
    assert "BertBackbone" in sentence("hub:bert_base_en") and "DINOV2" in sentence("hub:bert_base_en")
    assert "SAMBackbone" in sentence("hub:sam_base_sa1b")
    assert "hub:FOLDER" in sentence("hub:./nothing/here", kind=FileNotFoundError)
    assert "hf://USER/MODEL" in sentence("hf://only_one_part")
    assert "kaggle://USER" in sentence("kaggle://bad")
    assert "s3://a/b" in sentence("hub:s3://a/b", kind=FileNotFoundError)
    assert "ResNet50" in sentence("ResNet5")


def test_sizes_that_a_preset_does_not_take(presets):
    def said(name, size, **options):
        return sentence(str(presets[name][0]), size, **options)

    assert "multiple of 8 × 8" in said("vit", 36) and "32 × 32 or 40 × 40; received 36 × 36" in said("vit", 36)
    assert "multiple of 8 × 8" in said("clip", 30)
    assert "square" in said("dinov2", (32, 40)) and "square" in said("siglip", (32, 40))
    assert "32 × 32" in said("swin", 64) and "no other" in said("swin", 64)
    assert "multiple of 32" in said("mit", 48)
    _, saved = presets["vit"]
    text = sentence(saved, 64)
    assert "must be 32 × 32" in text and "64 × 64" in text


def test_poolings_that_a_preset_does_not_have(presets):
    assert "no class token" in sentence(str(presets["siglip"][0]), pooling="class")
    assert "projection" in sentence(str(presets["vit"][0]), pooling="projection")
    assert "attention" in sentence(str(presets["vit"][0]), pooling="attention")
    assert "tokens" in sentence(str(presets["resnet"][0]), pooling="class")
    assert "not known" in sentence(
        keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Reshape((16, 3))]), 4, "patches"
    )
    assert "`weights`" in sentence(str(presets["vit"][0]), weights="vit.h5")


def test_folders_that_are_incomplete_or_damaged(presets, tmp_path):
    def copy(name):
        shutil.copytree(presets["vit"][0], tmp_path / name)
        return tmp_path / name

    assert "no config.json" in sentence(f"hub:{tmp_path}")
    folder = copy("weights")
    (folder / "model.weights.h5").unlink()
    assert "no model.weights.h5" in sentence(str(folder))
    assert backbones.build(str(folder), weights="random").count_params()
    folder = copy("cut")
    weights = (folder / "model.weights.h5").read_bytes()
    (folder / "model.weights.h5").write_bytes(weights[: len(weights) // 2])
    assert "copy it again" in sentence(str(folder))
    folder = copy("text")
    (folder / "config.json").write_text("{")
    assert "config.json" in sentence(str(folder))
    folder = copy("scaling")
    (folder / "image_converter.json").unlink()
    assert "image_converter.json" in sentence(str(folder)) and "`scaling`" in sentence(str(folder))
    assert backbones.build(str(folder), scaling="symmetric").get_layer("scaling").mode == "symmetric"


def test_presets_of_other_versions(presets, tmp_path):
    def changed(name, change):
        folder = tmp_path / name
        shutil.copytree(presets["vit"][0], folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "metadata.json").write_text('{"keras_version": "9.1.0", "keras_hub_version": "3.2.1"}')
        return sentence(f"hub:{folder}")

    newer = changed("class", lambda config: config.update(registered_name="keras_hub>NextNetBackbone"))
    assert "NextNetBackbone" in newer and "keras-hub 3.2.1 and Keras 9.1.0" in newer
    wider = changed("wider", lambda config: config["config"].update(hidden_dim=32))
    assert "cannot be loaded" in wider and "keras-hub 3.2.1" in wider
    assert "names no model" in changed("foreign", lambda config: config.pop("registered_name"))
    text = changed("language", lambda config: config.update(registered_name="keras_hub>BertBackbone"))
    assert "BertBackbone" in text
    # Whatever a file names, nothing but a model of keras-hub is made.
    code = changed("code", lambda config: config.update(registered_name="keras_hub>../../os", module="os"))
    assert "os" in code


def test_without_a_network_one_sentence_says_what_helps(monkeypatch, caplog):
    import kagglehub
    import requests

    def refuse(handle, path=None):
        raise requests.exceptions.ConnectionError("HTTPSConnectionPool(host='api.kaggle.com', port=443): Max\nmore")

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    for name in ("hub:dinov2_small", "kaggle://keras/vit/keras/vit_base_patch16_224_imagenet"):
        text = sentence(name, 224, kind=ConnectionError)
        assert "from Kaggle" in text and "no connection to api.kaggle.com" in text and "hub:FOLDER" in text
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    def missing(repo_id, filename):
        raise LocalEntryNotFoundError("cannot find the requested files")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    text = sentence("hf://somebody/dinov2", 224, kind=ConnectionError)
    assert "Hugging Face" in text and "hub:FOLDER" in text


def test_what_is_downloaded_is_announced_with_its_size(presets, monkeypatch, caplog):
    import kagglehub
    import keras_hub

    folder, _ = presets["dinov2"]
    announced = []

    def download(handle, path=None):
        if not announced:  # before the first file
            announced.extend(record.getMessage() for record in caplog.records)
        return str(pathlib.Path(folder) / path)

    real = keras_hub.models.Backbone.from_preset
    monkeypatch.setattr(kagglehub, "model_download", download)
    monkeypatch.setattr(
        keras_hub.models.Backbone, "from_preset", lambda handle, load_weights: real(str(folder), load_weights)
    )
    with caplog.at_level(logging.INFO, "tf_detreg"):
        assert backbones.build("hub:dinov2_base").input_shape[1] == SIZE
    assert announced == ["hub:dinov2_base: 87.6 M parameters, about 351 MB, from Kaggle unless it is in the cache."]


def test_without_keras_hub_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    assert "tf-detreg[hub]" in sentence("hub:dinov2_small", kind=ImportError)


def test_a_saved_model_says_what_it_needs(presets, tmp_path, monkeypatch):
    backbones.build(str(presets["vit"][0])).save(tmp_path / "vit.keras")
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"keras-hub, which is not installed: pip install 'tf-detreg\[hub\]'"):
        load(tmp_path / "vit.keras")

"""Backbones of keras-cv and keras-hub, given as objects: built, saved, loaded elsewhere, exported."""

import importlib.util
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from tf_detreg import backbones, heads
from tf_detreg.backbones.foreign import ForeignBackbone


def cv_densenet():
    import keras_cv

    return keras_cv.models.DenseNetBackbone(
        stackwise_num_repeats=[1, 1], growth_rate=4, include_rescaling=True, input_shape=(32, 32, 3)
    )


def hub_resnet():
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=False,
        image_shape=(32, 32, 3),
    )


def hub_vgg():
    import keras_hub

    return keras_hub.models.VGGBackbone(
        stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 8], image_shape=(32, 32, 3)
    )


def hub_dino():
    import keras_hub

    return keras_hub.models.DINOV2Backbone(
        patch_size=8,
        num_layers=1,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        image_shape=(32, 32, 3),
        position_embedding_shape=(32, 32, 3),
    )


def hub_vit():
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
    )


MAKERS = [cv_densenet, hub_resnet, hub_vgg, hub_vit, hub_dino]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def body(request):
    package = "keras_" + request.param.__name__.split("_")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    keras.utils.set_random_seed(0)
    return request.param()


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")


@pytest.mark.slow
def test_an_object_trains_saves_loads_elsewhere_and_exports(body, images, tmp_path):
    # keras-hub's DINOv2 trains its position embeddings but runs on a resized copy, renewed only when a file is loaded:
    # a trained one differs a little after loading, a frozen one must not.
    frozen = "dino" in body.name
    features = backbones.build(body, image_size=32, pooling="avg", trainable=not frozen)
    assert features.output_shape[0] is None and len(features.output_shape) == 2
    model = keras.Sequential([keras.Input((32, 32, 3)), features, heads.RealNVP(8, depth=2)])
    model.compile("sgd", loss="mse")
    before = [np.array(weight) for weight in body.weights]
    model.fit(images, np.eye(3, 8), verbose=0)
    changed = any((np.array(weight) != old).any() for weight, old in zip(body.weights, before, strict=True))
    assert changed != frozen

    np.savez(tmp_path / "expected.npz", images=images, embeddings=model.predict(images, verbose=0))
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "saved_model", verbose=False)
    script = f"""
import numpy as np, tensorflow as tf
with np.load({str(tmp_path / "expected.npz")!r}) as file:
    images, expected = file["images"], file["embeddings"]
served = tf.saved_model.load({str(tmp_path / "saved_model")!r})
np.testing.assert_allclose(served.serve(images), expected, atol=1e-5)
import tf_detreg
loaded = tf_detreg.load({str(tmp_path / "model.keras")!r})
np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_batch_norm_and_unfreezing_reach_inside(body):
    features = backbones.build(body, image_size=32, freeze_batch_norm=True)
    norms = [x for x in backbones.leaf_layers(features) if isinstance(x, keras.layers.BatchNormalization)]
    assert all(not norm.trainable for norm in norms) and features.trainable_weights
    assert (
        backbones.unfreeze(features, 0.0) == 0 < backbones.unfreeze(features, 0.3) < backbones.unfreeze(features, 1.0)
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    config = {"body": {}, "package": "keras_hub"}
    with pytest.raises(ImportError, match=r"tf-detreg\[hub\]"):
        ForeignBackbone.from_config(config)
    with pytest.raises(ValueError, match="`package`"):
        ForeignBackbone(backbones.small_cnn(16, width=4), "torchvision")


@pytest.mark.skipif(importlib.util.find_spec("keras_cv") is None, reason="needs keras-cv")
def test_a_preset_of_keras_cv_is_asked_of_the_family_that_has_it(monkeypatch):
    import keras_cv

    asked = []

    def from_preset(preset, load_weights):
        asked.append((preset, load_weights))
        if load_weights:
            raise OSError("no network")
        return cv_densenet()

    monkeypatch.setattr(keras_cv.models.MobileNetV3Backbone, "from_preset", from_preset)
    assert backbones.build("cv:mobilenet_v3_small", image_size=32)(np.zeros((1, 32, 32, 3))).shape[0] == 1
    with pytest.raises(ConnectionError, match=r"mobilenet_v3_small' from Kaggle, which failed: no network"):
        backbones.build("cv:mobilenet_v3_small", image_size=32, weights="preset")
    assert asked == [("mobilenet_v3_small", False), ("mobilenet_v3_small", True)]
    with pytest.raises(ValueError, match=r"no preset 'mobilenet_v3_smal'.*mobilenet_v3_small"):
        backbones.build("cv:mobilenet_v3_smal", image_size=32)


def test_the_shape_of_tokens_is_that_of_the_patches():
    body = types.SimpleNamespace(
        embedding=types.SimpleNamespace(num_positions=16),
        hidden_dim=32,
        compute_output_shape=lambda shape: (shape[0], 5),
    )
    for tokens, shape in ((True, (7, 16, 32)), (False, (7, 5))):
        layer = types.SimpleNamespace(tokens=tokens, body=body)
        assert ForeignBackbone.compute_output_shape(layer, (7, 8, 9, 3)) == shape

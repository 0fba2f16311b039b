import keras
import numpy as np
import pytest

from tf_detreg import backbones


@pytest.mark.parametrize("pooling, features", [("avg", 32), ("max", 32), ("both", 64), ("gem", 32)])
def test_small_cnn_saves_and_loads(tmp_path, pooling, features):
    model = backbones.build(backbones.small_cnn(16, width=8, pooling=None), image_size=16, pooling=pooling)
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    before = model.predict(images, verbose=0)
    assert before.shape == (2, features)
    model.save(tmp_path / "b.keras")
    after = keras.models.load_model(tmp_path / "b.keras").predict(images, verbose=0)
    np.testing.assert_allclose(before, after, rtol=1e-5)


@pytest.mark.parametrize(
    "pooling, pooled",
    [
        ("first", lambda x: x[:, 0]),
        ("avg", lambda x: x.mean(1)),
        ("max", lambda x: x.max(1)),
        ("both", lambda x: np.concatenate([x.mean(1), x.max(1)], axis=1)),
    ],
)
def test_tokens_of_a_transformer_are_pooled(pooling, pooled):
    tokens = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Reshape((16, 3))])
    images = np.random.default_rng(3).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    found = backbones.build(tokens, image_size=4, pooling=pooling).predict(images, verbose=0)
    np.testing.assert_allclose(found, pooled(images.reshape(2, 16, 3)), rtol=1e-5)


def test_gem_lies_between_average_and_maximum():
    x = np.random.default_rng(1).uniform(0, 9, (2, 4, 5, 3)).astype("float32")
    np.testing.assert_allclose(backbones.GeM(power=1.0)(x), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(backbones.GeM(power=3.0)(x), (x**3).mean((1, 2)) ** (1 / 3), rtol=1e-5)
    np.testing.assert_allclose(backbones.GeM(power=200.0)(x), x.max((1, 2)), rtol=0.02)
    assert np.isfinite(backbones.GeM()(np.zeros((1, 2, 2, 3), "float32"))).all()


@pytest.mark.parametrize("name, module", [("ResNet50", "resnet"), ("DenseNet121", "densenet"), ("VGG16", "vgg16")])
def test_scaling_equals_keras_preprocessing(name, module):
    from tf_detreg.backbones.build import _APPLICATION_SCALING

    x = np.random.default_rng(2).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    theirs = getattr(keras.applications, module).preprocess_input(x.copy())
    ours = backbones.PixelScaling(_APPLICATION_SCALING[module])(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_every_application_scales_as_its_own_preprocessing():
    from tf_detreg.backbones.build import _APPLICATION_SCALING, _applications

    x = np.random.default_rng(2).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    for maker in _applications().values():
        module = maker.__module__.rsplit(".", 1)[-1]
        theirs = __import__(maker.__module__, fromlist=["x"]).preprocess_input(x.copy())
        ours = backbones.PixelScaling(_APPLICATION_SCALING.get(module, "none"))(x)
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=module)


def test_application_by_name_and_frozen_batch_norm():
    model = backbones.build("mobilenet_v2", image_size=32, freeze_batch_norm=True)
    assert model.output_shape == (None, 1280)
    names = [v.path for v in model.trainable_variables]
    assert names and not any("gamma" in n for n in names)
    frozen = backbones.build("small_cnn", image_size=16, trainable=False)
    assert not frozen.trainable_variables


def test_unfreeze_step_by_step():
    model = backbones.build("small_cnn", image_size=16)
    assert backbones.unfreeze(model, 0.0) == 0 and not model.trainable_variables
    some = backbones.unfreeze(model, 0.5)
    assert 0 < some < backbones.unfreeze(model, 1.0) < backbones.unfreeze(model, 1.0, keep_batch_norm=False) == 12
    backbones.unfreeze(model, 0.2, keep_batch_norm=False)
    assert all("block3" in v.path for v in model.trainable_variables)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`backbone` must be .*received 'resnet51'"):
        backbones.build("resnet51")
    with pytest.raises(ValueError, match="`pooling`"):
        backbones.build("small_cnn", pooling="mean")
    with pytest.raises(ValueError, match="'first' for tokens"):
        backbones.build("small_cnn", pooling="first")
    with pytest.raises(ValueError, match="`mode`"):
        backbones.build("small_cnn", scaling="half")
    with pytest.raises(ValueError, match="`weights`"):
        backbones.build("small_cnn", weights="imagenet")
    with pytest.raises(ValueError, match="`backbone`"):
        backbones.build(3)


def test_batch_norm_trains_unless_it_is_frozen():
    def norms(**options):
        net = backbones.build("small_cnn", image_size=16, **options)
        return {weight.path.rpartition("/")[2] for weight in net.trainable_weights} & {"gamma", "beta"}

    assert norms() == {"gamma", "beta"} and norms(freeze_batch_norm=True) == set()
    from tf_detreg.backbones.fine_tuning import restrict

    kept = restrict(backbones.small_cnn(16, width=4))
    assert {"gamma", "beta"} <= {weight.path.rpartition("/")[2] for weight in kept.trainable_weights}


def test_pooled_tokens_have_the_shape_that_is_promised():
    from tf_detreg.backbones.pooling import TokenPool

    for mode, width in (("class", 3), ("patches", 3), ("class+patches", 6)):
        layer = TokenPool(mode)
        assert layer.compute_output_shape((7, 5, 3)) == layer(np.ones((7, 5, 3), "float32")).shape == (7, width)
        assert layer.compute_output_shape((None, 5, None)) == (None, None)


@pytest.mark.parametrize(
    ("pooling", "prefix", "text"),
    [
        ("patches", None, "which tokens are patches is not known"),
        ("class+patches", None, "which tokens are patches is not known"),
        ("class", 0, "there is no class token"),
        ("class+patches", 0, "there is no class token"),
    ],
)
def test_tokens_that_are_not_there_or_not_known_cannot_be_pooled(pooling, prefix, text):
    from tf_detreg.backbones.pooling import pool

    with pytest.raises(ValueError, match=text):
        pool(np.ones((2, 5, 3), "float32"), pooling, prefix)
    np.testing.assert_array_equal(pool(2 * np.ones((2, 5, 3), "float32"), "class", None), 2 * np.ones((2, 3)))
    np.testing.assert_array_equal(pool(2 * np.ones((2, 5, 3), "float32"), "patches", 0), 2 * np.ones((2, 3)))


@pytest.mark.parametrize(("size", "most"), [(2, 3), (16, 4), (17, 5), ((8, 33), 6)])
def test_a_small_cnn_has_as_many_blocks_as_halve_its_image_to_one_pixel(size, most):
    assert backbones.small_cnn(size, width=1, blocks=most, pooling=None).output_shape[1:3].count(1) >= 1
    with pytest.raises(ValueError, match=rf"`blocks` must be a whole number from 1 to {most}; received {most + 1}"):
        backbones.small_cnn(size, width=1, blocks=most + 1)

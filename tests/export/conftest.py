"""One small trained-looking embedder and its exports, made once for all tests of the package."""

import keras
import numpy as np
import pytest

from tests.pictures import encode
from tf_detreg import export, heads

SIZE = (32, 32)


@pytest.fixture(scope="session")
def embedder():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(16, 3, 2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(32, 3, 2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            heads.RealNVP(16, depth=2, hidden=32, penalty=0.05),
        ],
        name="small",
    )


@pytest.fixture(scope="session")
def plain():
    """An embedder without a flow, of which an export takes a third of the time: for tests of what surrounds it."""
    keras.utils.set_random_seed(4)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(16), keras.layers.UnitNormalization()]
    return keras.Sequential([keras.Input((*SIZE, 3)), *layers], name="plain")


@pytest.fixture(scope="session")
def images():
    """Smooth random pictures of 12 classes, 4 each: whole numbers, so that PNG keeps them."""
    rng = np.random.default_rng(0)
    classes = rng.uniform(0, 255, (12, 4, 4, 3))
    noisy = np.repeat(classes, 4, axis=0) + rng.normal(0, 20, (48, 4, 4, 3))
    large = np.kron(noisy, np.ones((1, 8, 8, 1)))
    return np.clip(large, 0, 255).astype(np.uint8).astype(np.float32)


@pytest.fixture(scope="session")
def labels():
    return np.repeat(np.arange(12), 4)


@pytest.fixture(scope="session")
def expected(embedder, images):
    return np.asarray(embedder(images))


@pytest.fixture(scope="session")
def exported(embedder, tmp_path_factory):
    """The version folder of a SavedModel."""
    return export.saved_model(embedder, tmp_path_factory.mktemp("models") / "small", class_names=["a", "b"])


@pytest.fixture(scope="session", name="encode")
def encode_fixture():
    """`encode(image, format, **options)`: the bytes of an image file."""
    return encode

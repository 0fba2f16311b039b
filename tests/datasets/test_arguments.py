"""Each argument of a loader arrives, and what it leaves out is what it says; the pictures are a few dots each."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import pathlib
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.datasets import trees
from tf_detreg import datasets
from tf_detreg.datasets import augment, batches, cache, feature_cache, image_set
from tf_detreg.datasets.feature_cache import FeatureSet

# The package gives the functions of these names.
folder, tfds = (importlib.import_module(f"tf_detreg.datasets.{name}") for name in ("folder", "tfds"))


def _emoji(path, classes=12, each=2):
    pictures = []
    for shade in range(classes * each):
        file = io.BytesIO()
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(file, "PNG")
        pictures.append(file.getvalue())
    info = {
        "styles": [{"name": f"s{i}", "family": f"f{i}"} for i in range(each)],
        "classes": [{"label": f"c{i:02d}"} for i in range(classes)],
    }
    np.savez(
        path,
        png=np.frombuffer(b"".join(pictures), np.uint8),
        offset=np.cumsum([0, *map(len, pictures)]),
        label=np.repeat(np.arange(classes), each),
        style=np.tile(np.arange(each), classes),
        info=np.frombuffer(json.dumps(info).encode(), np.uint8),
    )
    return str(path)


def _classes(root, names):
    for number, name in enumerate(names):
        for each in range(2):
            trees.picture(root / name / f"{each}.png", 10 * number + each)
    return root


def _csv(root, splits=None):
    names = [f"c{number:02d}" for number in range(12)]
    _classes(root / "pictures", names)
    header = "path,label" + (",split" if splits else "")
    lines = [f"{name}/{each}.png,{name}" + (f",{splits}" if splits else "") for name in names for each in range(2)]
    (root / "list.csv").write_text("\n".join([header, *lines]) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    """A call of each loader that deals classes, for any options."""
    root = tmp_path_factory.mktemp("loaders")
    twelve = range(1, 13)
    trees.cub(root / "cub", (*twelve, 101, 102), each=1)
    trees.cars(root / "cars", (*twelve, 99, 100), each=1)
    trees.sop(root / "sop", articles=12, each=1)
    trees.in_shop(root / "in_shop", garments=12, each=1)
    for part, count in (("train", 12), ("test", 2)):
        _classes(root / "parts" / part, [f"c{number:02d}" for number in range(count)])
    _csv(root / "csv")
    pixels = np.arange(24, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    emoji = _emoji(root / "set.npz")
    return {
        "cub": lambda **o: datasets.cub(root / "cub", check=False, **o),
        "cars": lambda **o: datasets.cars(root / "cars", check=False, **o),
        "sop": lambda **o: datasets.sop(root / "sop", check=False, **o),
        "in_shop": lambda **o: datasets.in_shop(root / "in_shop", check=False, **o),
        "folder": lambda **o: datasets.folder(root / "csv" / "pictures", **o),
        "folder with parts": lambda **o: datasets.folder(root / "parts", **o),
        "csv": lambda **o: datasets.csv(root / "csv" / "list.csv", directory=root / "csv" / "pictures", **o),
        "arrays": lambda **o: datasets.arrays(pixels, np.repeat(np.arange(12), 2), **o),
        "emoji": lambda **o: datasets.emoji(emoji, **o),
    }


LOADERS = ("cub", "cars", "sop", "in_shop", "folder", "folder with parts", "csv", "arrays", "emoji")


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_deals_its_classes_by_the_seed_and_the_share_that_it_is_given(name, loaders):
    def validation(**options):
        return loaders[name](**options).validation.class_names

    assert len(validation(validation=0.25)) > 1
    dealt = {tuple(validation(validation=0.25, seed=seed)) for seed in range(4)}
    assert len(dealt) > 1
    assert tuple(validation(validation=0.25)) == tuple(validation(validation=0.25, seed=0))
    assert len(validation(validation=0.5)) == 6


@pytest.mark.parametrize("name", ("folder", "csv", "arrays", "emoji"))
def test_a_loader_deals_a_share_of_its_classes_to_the_test(name, loaders):
    assert loaders[name](test=0.25).test.num_classes == 3
    # 0.3 of the twelve, by default.
    assert [part.num_classes for part in loaders[name]()] == [12 - 2 - 4, 2, 4]


def test_in_shop_is_also_found_without_its_two_upper_folders(tmp_path):
    root = trees.in_shop(tmp_path / "root", garments=3, each=1)
    known = datasets.in_shop(root, check=False)
    (root / "Eval" / "list_eval_partition.txt").rename(root / "list_eval_partition.txt")
    (root / "Img" / "img").rename(root / "img")
    (root / "Img").rmdir()
    moved = datasets.in_shop(root, check=False)
    assert [part.class_names for part in moved] == [part.class_names for part in known]
    assert all(os.path.isfile(path) for part in moved for path in part.files)


def test_a_list_of_files_says_where_it_cannot_be_used(tmp_path):
    path = _csv(tmp_path, "test")
    with pytest.raises(ValueError, match="no row has the split 'train'"):
        datasets.csv(path, directory=tmp_path / "pictures")
    one = tmp_path / "pictures" / "one.csv"
    one.write_text("path,label\nc00/0.png,same\nc01/0.png,same\n")
    with pytest.raises(ValueError, match=r"one\.csv \(one\) has one class, 'same'"):
        datasets.csv(one)
    for cells in ("c00/0.png, ", " ,ant", "c00/0.png", "c00/0.png,ant,more"):
        one.write_text(f"path,label\nc01/0.png,bee\n{cells}\n")
        with pytest.raises(ValueError, match="line 3: path or label is empty, or the number of columns is wrong"):
            datasets.csv(one)


@pytest.fixture
def parts(tmp_path):
    for part in ("train", "test"):
        _classes(tmp_path / part, [f"{part}{number}" for number in range(10)])
    return tmp_path


def test_given_parts_take_their_share_of_what_is_not_tested_for_validation(parts):
    # 0.2 of all beside 0.3 for testing is 2/7 of the rest.
    assert datasets.folder(parts).validation.num_classes == 3
    assert datasets.folder(parts, validation=0.2, test=0.8).validation.num_classes == 2
    assert datasets.folder(parts, validation=0.9, test=0.0).validation.num_classes == 5


def test_folders_are_parts_only_where_there_are_no_others_but_hidden_ones(parts):
    (parts / ".cache").mkdir()
    assert set(folder._given_parts(parts)) == {"train", "test"}
    (parts / "VALID").mkdir()
    assert folder._given_parts(parts)["validation"].name == "VALID"
    (parts / "bird").mkdir()
    assert folder._given_parts(parts) is None
    shutil.rmtree(parts / "bird")
    shutil.rmtree(parts / "test")
    assert folder._given_parts(parts) is None


def test_hidden_files_and_folders_are_no_pictures_and_the_others_come_in_the_order_of_their_names(tmp_path):
    _classes(tmp_path, ["ant", "bee", ".trash"])
    for name in ("ant/.old/2.png", "ant/.hidden.png", "ant/b/z.png", "ant/b/a.png", "ant/a/y.png", "bee/10.png"):
        trees.picture(tmp_path / name, len(name))
    loaded = folder._load(tmp_path, 8, "set")
    assert loaded.class_names == ("ant", "bee") and loaded.skipped == ()
    assert [os.path.relpath(path, tmp_path) for path in loaded.files] == [
        "ant/0.png",
        "ant/1.png",
        "ant/a/y.png",
        "ant/b/a.png",
        "ant/b/z.png",
        "bee/0.png",
        "bee/1.png",
        "bee/10.png",
    ]


def test_pictures_beside_the_class_folders_are_counted(tmp_path):
    (tmp_path / "ant").mkdir()
    for name in ("0.png", "1.jpg", "note.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"\(2 pictures lie beside, in no class folder\)"):
        folder._load(tmp_path, 8, "set")


def test_a_data_file_here_is_taken_before_that_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_DETREG_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "set.npz").write_bytes(b"")
    assert cache.find_data("set.npz") == tmp_path / "data" / "set.npz"
    pathlib.Path("set.npz").write_bytes(b"")
    assert cache.find_data("set.npz") == pathlib.Path("set.npz")


def test_digits_are_rounded_to_the_nearest_shade():
    shades = np.unique(np.concatenate([part.images for part in datasets.digits()]))
    assert shades.tolist() == [round(value * 255 / 16) for value in range(17)]


class _Backbone:
    """What the fingerprint of features asks of a backbone."""

    weights = ()

    def to_json(self):
        return "{}"


def test_the_fingerprint_of_features_sees_pixels_size_names_and_times(tmp_path):
    pixels = np.zeros((5000, 1, 1, 3), np.uint8)
    memory = datasets.ImageSet(np.arange(5000) % 2, ["a", "b"], pixels)
    other = pixels.copy()
    other[4999, 0, 0, 2] = 1
    for number in range(2):
        trees.picture(tmp_path / f"{number}.png")
        os.utime(tmp_path / f"{number}.png", ns=(10**18, 10**18))
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    files = datasets.ImageSet([0, 1], ["a", "b"], paths=names, image_size=8)

    def mark(images):
        return feature_cache._fingerprint(_Backbone(), images)

    marks = [mark(memory), mark(dataclasses.replace(memory, images=other)), mark(files)]
    marks += [mark(dataclasses.replace(files, image_size=9)), mark(dataclasses.replace(files, paths=names[::-1]))]
    before = os.stat(names[0])
    os.utime(names[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    marks.append(mark(files))
    os.remove(names[0])
    marks.append(mark(files))
    assert len(set(marks)) == len(marks)
    assert mark(memory) == marks[0]


def test_features_are_computed_under_a_lock_by_what_another_process_left(tmp_path, monkeypatch):
    held = []

    @contextlib.contextmanager
    def lock(place):
        held.append(place)
        # Another process finishes while this one waits.
        (place / "features.f32").write_bytes(np.full((4, 3), 7, "<f4").tobytes())
        with open(place / "features.f32", "r+b") as file:
            other = feature_cache._Store(place, 4, 3)
            other.written[:] = True
            other.note(file, 4)
        yield
        held.append("released")

    monkeypatch.setattr(feature_cache, "alone_in", lock)
    backbone = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    images = datasets.ImageSet([0, 0, 1, 1], ["a", "b"], np.zeros((4, 1, 1, 3), np.uint8))
    features = datasets.cache_features(backbone, images, tmp_path)
    assert held[1:] == ["released"] and held[0].parent == tmp_path
    assert (np.asarray(features.features) == 7).all()


def test_a_feature_set_selects_as_an_image_set_does():
    labels, groups = np.array([0, 1, 2, 1, 0, 2]), np.array([5, 6, 7, 8, 9, 10])
    images = datasets.ImageSet(labels, list("abc"), np.zeros((6, 1, 1, 3), np.uint8), groups=groups)
    features = FeatureSet(np.arange(14.0).reshape(7, 2), np.array([0, 1, 2, 4, 5, 6]), labels, list("abc"), groups)
    for choose in (
        lambda s: s.subset(np.array([5, 1])),
        lambda s: s.subset(np.arange(6) % 2 == 1),
        lambda s: s.select_classes([2, 0], "some"),
        lambda s: s.select_classes([1]),
    ):
        one, other = choose(features), choose(images)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.groups.tolist() == other.groups.tolist()
        assert tuple(one.class_names) == tuple(other.class_names)
    assert features.subset([5, 1]).rows.tolist() == [6, 1]
    assert features.select_classes([2, 0], "some").name == "some"
    assert features.select_classes([2, 0]).name == "features"


def test_an_unreadable_image_is_replaced_by_one_of_its_class_if_there_is_one():
    rows = tf.constant([[0.0], [1.0], [2.0], [3.0]])
    labels = tf.constant([0, 1, 1, 0])

    def repaired(*kept):
        values, names = batches._replace_missing(rows, labels, tf.constant(kept))
        return values.numpy()[:, 0].tolist(), names.numpy().tolist()

    assert repaired(True, True, False, True) == ([0, 1, 1, 3], [0, 1, 1, 0])
    assert repaired(False, True, True, True) == ([3, 1, 2, 3], [0, 1, 1, 0])
    # None of its class: the first that could be read, with its label.
    assert repaired(True, False, False, True) == ([0, 0, 0, 3], [0, 0, 0, 0])
    assert repaired(True, True, True, True) == ([0, 1, 2, 3], [0, 1, 1, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="Not one image of a batch could be read"):
        repaired(False, False, False, False)


def test_the_seed_of_a_batch_gives_each_layer_and_each_draw_another():
    seed = tf.constant([1, 2], tf.int32)
    drawn = []
    for layer in range(2):
        generator = augment._BatchSeed(seed, layer)
        drawn += [tuple(generator.next().numpy()) for _ in range(2)]
    drawn.append(tuple(augment._BatchSeed(seed + 1, 0).next().numpy()))
    assert len(set(drawn)) == 5
    assert tuple(augment._BatchSeed(seed, 0).next().numpy()) == drawn[0]


def test_nested_layers_are_numbered_in_order():
    first, second, third = (keras.layers.RandomFlip(mode) for mode in ("horizontal", "vertical", "horizontal"))
    nested = keras.Sequential([first, keras.Sequential([second, third])])
    assert augment._flat(nested) == [first, second, third]
    assert augment._flat(first) == [first] and augment._flat(len) is None


def test_held_out_classes_follow_the_share_and_no_share_holds_none_out():
    labels = np.arange(20) % 10
    images = datasets.ImageSet(labels, list("abcdefghij"), np.zeros((20, 1, 1, 3), np.uint8))
    train, validation = image_set.hold_out(images, 0.0)
    assert train.num_classes == 10 and len(validation) == 0
    train, validation = image_set.hold_out(images, 0.3, 1)
    assert (train.num_classes, validation.num_classes) == (7, 3)
    assert not set(train.class_names) & set(validation.class_names)


def test_a_set_that_has_no_class_label_is_refused():
    features = pytest.importorskip("tensorflow_datasets").features
    image, label = features.Image(), features.ClassLabel(num_classes=2)

    def check(**kinds):
        builder = types.SimpleNamespace(name="things", info=types.SimpleNamespace(features=kinds))
        tfds._check_features(builder, tfds._Fields())

    check(image=image, label=label)
    for kinds, key in (
        ({"image": image}, "label"),
        ({"label": label}, "image"),
        ({"image": label, "label": label}, "image"),
    ):
        with pytest.raises(ValueError, match=f"things has no feature '{key}' of kind"):
            check(**kinds)

import errno
import importlib

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import datasets

cache = importlib.import_module("tf_detreg.datasets.feature_cache")


@pytest.fixture(scope="module")
def images():
    return datasets.digits().validation.subset(np.arange(100))


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])


class Counting:
    """A backbone that counts the images it is given, and stops at a given batch as if killed."""

    def __init__(self, monkeypatch, stop_after=None):
        self.images, self.batches, self.stop_after = 0, 0, stop_after
        write = cache._Store.write

        def counted(store, file, rows, features):
            if self.batches == self.stop_after:
                raise KeyboardInterrupt
            self.images, self.batches = self.images + len(rows), self.batches + 1
            write(store, file, rows, features)

        monkeypatch.setattr(cache._Store, "write", counted)


def test_features_are_those_of_the_backbone(images, backbone, tmp_path):
    features = datasets.cache_features(backbone, images, tmp_path, batch_size=32)
    expected = backbone.predict(images.images.astype("float32"), verbose=0)
    found = np.concatenate([x for x, _ in features.ordered(batch_size=7)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert isinstance(features.features, np.memmap) and features.dim == 5
    for x, y in features.batches(classes=4, images=3, seed=2):
        assert x.shape == (12, 5) and len(set(y.numpy())) == 4


def test_batches_come_in_the_order_of_the_images(images, backbone, tmp_path):
    features = datasets.cache_features(backbone, images, tmp_path)
    ours = [y.numpy().tolist() for _, y in features.batches(4, 3, seed=5, first_epoch=2)]
    assert ours == [y.numpy().tolist() for _, y in images.batches(4, 3, seed=5, first_epoch=2)]
    # Where nothing is said of the epoch, both begin with the first.
    begins = [[y.numpy().tolist() for _, y in some.batches(4, 3, seed=5)] for some in (features, images)]
    assert begins[0] == begins[1] != ours


def test_computed_once_and_anew_when_anything_changes(images, backbone, tmp_path, monkeypatch):
    count = Counting(monkeypatch)
    for _ in range(2):
        datasets.cache_features(backbone, images, tmp_path)
    assert count.images == 100
    other = keras.models.clone_model(backbone)
    datasets.cache_features(other, images, tmp_path)
    assert count.images == 200
    datasets.cache_features(other, images.subset(np.arange(50)), tmp_path)
    assert count.images == 250 and len(list(tmp_path.iterdir())) == 3


def test_an_interrupted_computation_goes_on(images, backbone, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_NOTES", 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Counting(patch, stop_after=2)
        datasets.cache_features(backbone, images, tmp_path, batch_size=30)
    count = Counting(monkeypatch)
    features = datasets.cache_features(backbone, images, tmp_path, batch_size=30)
    assert count.images == 40
    assert counted[f"Features of {images.name}"][-1][1] == 40
    expected = backbone.predict(images.images.astype("float32"), verbose=0)
    np.testing.assert_allclose(features.features, expected, rtol=1e-5, atol=1e-4)


def test_notes_that_make_no_sense_start_anew(images, backbone, tmp_path, monkeypatch):
    datasets.cache_features(backbone, images, tmp_path)
    (folder,) = tmp_path.iterdir()
    for damage in (
        lambda: (folder / "progress.json").write_text("{"),
        lambda: (folder / "features.f32").write_bytes(b""),
    ):
        damage()
        with monkeypatch.context() as patch:
            count = Counting(patch)
            datasets.cache_features(backbone, images, tmp_path)
        assert count.images == 100


def test_a_full_disk_says_how_much_is_needed_and_leaves_nothing(images, backbone, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"0\.0 MB, cannot be kept .No space left"):
        datasets.cache_features(backbone, images, tmp_path)
    assert not list(tmp_path.rglob("features*"))


def test_unreadable_images_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_NOTES", 0)
    paths = [str(tmp_path / f"{i}.png") for i in range(10)]
    for i, path in enumerate(paths):
        Image.new("L", (4, 4), i).save(path)
    for i in (0, 5, 6, 9):
        (tmp_path / f"{i}.png").write_text("broken")
    whole = datasets.ImageSet(
        labels=np.arange(10) % 2, class_names="ab", paths=paths, image_size=4, groups=np.arange(10)
    )
    mean = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])
    features = datasets.cache_features(mean, whole, tmp_path / "kept", batch_size=3, max_unreadable=0.5)
    assert features.groups.tolist() == [1, 2, 3, 4, 7, 8]
    x, y = next(iter(features.ordered()))
    np.testing.assert_allclose(x[:, 0], features.groups, atol=1e-4)
    np.testing.assert_array_equal(y, features.groups % 2)
    again = datasets.cache_features(mean, whole, tmp_path / "kept", batch_size=3, max_unreadable=0.5)
    assert again.groups.tolist() == features.groups.tolist()
    Image.new("L", (4, 4), 0).save(paths[0])
    assert len(datasets.cache_features(mean, whole, tmp_path / "kept", max_unreadable=0.5)) == 7


def test_splits_in_splits_out(images, backbone, tmp_path):
    splits = datasets.Splits(images, images.subset([]), images.subset([1, 2]))
    train, validation, test = datasets.cache_features(backbone, splits, tmp_path)
    assert (len(train), len(validation), len(test)) == (100, 0, 2)
    with pytest.raises(ValueError, match="`backbone` must give features"):
        datasets.cache_features(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU()]), images, tmp_path)


def test_a_second_process_that_begins_leaves_the_features_of_the_first(images, backbone, tmp_path):
    features = datasets.cache_features(backbone, images, tmp_path)
    kept = np.array(features.features)
    (folder,) = tmp_path.iterdir()
    (folder / "progress.json").unlink()  # as it was when the second process looked
    cache._Store(folder, len(images), features.dim).claim()
    np.testing.assert_array_equal(features.features, kept)


@pytest.mark.parametrize("before", [b"", b"abc", b"abcdefghijkl"])
@pytest.mark.parametrize("at_once", [True, False])
def test_room_is_made_of_the_right_size(before, at_once, tmp_path, monkeypatch):
    if not at_once:
        monkeypatch.delattr(cache.os, "posix_fallocate")
    path = tmp_path / "room"
    path.write_bytes(before)
    cache._allocate(path, 8)
    assert path.read_bytes() == before[:8].ljust(8, b"\0")


def test_no_flipped_bit_is_trained_on(images, backbone, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_NOTES", 0)
    expected = np.array(datasets.cache_features(backbone, images, tmp_path, batch_size=30).features)
    (folder,) = tmp_path.iterdir()
    rng = np.random.default_rng(0)
    for turn in range(50):
        victim = folder / ("progress.json" if turn % 5 == 4 else "features.f32")
        content = bytearray(victim.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        victim.write_bytes(content)
        found = datasets.cache_features(backbone, images, tmp_path, batch_size=30)
        np.testing.assert_allclose(found.features, expected, rtol=1e-5, atol=1e-4)
        assert len(found) == len(images)
    assert "is damaged from row" in caplog.text


def test_only_what_lies_behind_the_damage_is_computed_again(images, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_NOTES", 0)
    datasets.cache_features(backbone, images, tmp_path, batch_size=30)
    (folder,) = tmp_path.iterdir()
    with open(folder / "features.f32", "r+b") as file:
        file.seek(4 * 5 * 70)
        file.write(b"?")
    count = Counting(monkeypatch)
    datasets.cache_features(backbone, images, tmp_path, batch_size=30)
    assert count.images == 40  # of rows 60 to 99
    datasets.cache_features(backbone, images, tmp_path, batch_size=30)
    assert count.images == 40


def test_features_of_version_0_1_0_are_kept_and_get_checksums(images, backbone, tmp_path, monkeypatch):
    datasets.cache_features(backbone, images, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "progress.json").write_text('{"done": 100, "skipped": [], "dim": 5}')
    count = Counting(monkeypatch)
    datasets.cache_features(backbone, images, tmp_path)
    assert count.images == 0
    with open(folder / "features.f32", "r+b") as file:
        file.write(b"?")
    datasets.cache_features(backbone, images, tmp_path)
    assert count.images == 100


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EACCES, "Allow writing there"), (errno.EROFS, "Allow writing there"), (errno.ENOSPC, "Free some space")],
)
def test_a_cache_that_cannot_be_written_says_what_helps(code, advice, images, backbone, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(code, cache.os.strerror(code))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(OSError, match=advice) as caught:
        datasets.cache_features(backbone, images, tmp_path / "cache")
    assert caught.value.errno == code and cache.os.strerror(code) in str(caught.value)
    assert "Make room" not in str(caught.value)


def _files(folder, broken):
    """Twenty files, of which the last are no pictures."""
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(folder / f"{i:02d}.png")
    for i in range(20 - broken, 20):
        (folder / f"{i:02d}.png").write_bytes(b"no picture")
    paths = sorted(map(str, folder.iterdir()))
    return datasets.ImageSet(np.arange(20) % 4, list("abcd"), paths=paths, image_size=8, name="the set")


def test_too_many_unreadable_files_are_an_error_as_in_training(backbone, tmp_path):
    few, many = _files(tmp_path / "few", 1), _files(tmp_path / "many", 2)
    assert len(datasets.cache_features(backbone, few, tmp_path / "cache")) == 19
    told = r"2 of the 20 images of the set cannot be read, more than the stated share of 5.0%.*`max_unreadable`"
    for batch_size in (64, 3):
        with pytest.raises(ValueError, match=told):
            datasets.cache_features(backbone, many, tmp_path / "cache", batch_size)
    # What was kept without a limit is not taken with one.
    assert len(datasets.cache_features(backbone, many, tmp_path / "cache", max_unreadable=0.1)) == 18
    with pytest.raises(ValueError, match=told):
        datasets.cache_features(backbone, many, tmp_path / "cache")
    # In a split the limit is that of the images that are trained on.
    splits = datasets.Splits(few, many, many)
    assert list(map(len, datasets.cache_features(backbone, splits, tmp_path / "cache"))) == [19, 18, 18]
    with pytest.raises(ValueError, match=told):
        datasets.cache_features(backbone, datasets.Splits(many, few, few), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"`max_unreadable` must be a number in \[0, 1\]; received 5"):
        datasets.cache_features(backbone, few, tmp_path / "cache", max_unreadable=5)


def test_progress_is_shown_in_a_log(images, backbone, tmp_path, monkeypatch, capsys, counted):
    monkeypatch.setattr("tf_detreg.progress.EVERY", 0.0)
    datasets.cache_features(backbone, images, tmp_path, batch_size=25)
    said = capsys.readouterr().err
    assert "Features of digits" in said and "100" in said
    ((title, ends),) = counted.items()
    assert title.startswith("Features of digits") and ends == [(len(images), len(images))]

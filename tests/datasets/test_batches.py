import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_detreg import datasets
from tf_detreg.datasets import ImageSet, RandomCrop, batches
from tf_detreg.datasets.sampler import ClassSampler


def toy(counts=(5, 1, 3, 8, 2), size=6):
    """Each pixel of image i is i, so that a batch shows which images it holds."""
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None], (len(labels), size, size))
    return ImageSet(labels=labels, class_names=[str(c) for c in range(len(counts))], images=pixels)


def file_set(folder, count=12, broken=(), classes=3):
    paths = []
    for i in range(count):
        path = folder / f"{i}.png"
        if i in broken:
            path.write_bytes(b"not a picture")
        else:
            Image.new("RGB", (9, 7), (i, i, i)).save(path)
        paths.append(str(path))
    labels = np.arange(count) % classes
    return ImageSet(labels=labels, class_names=[str(c) for c in range(classes)], paths=paths, image_size=4)


def contents(dataset):
    return [(np.asarray(x)[:, 0, 0, 0].astype(int).tolist(), np.asarray(y).tolist()) for x, y in dataset]


def test_batches_hold_classes_times_images_and_match_their_labels():
    whole = toy()
    batches = list(whole.batches(classes=3, images=2, seed=1))
    for x, y in batches:
        assert x.shape == (6, 6, 6, 3) and x.dtype == tf.float32 and y.dtype == tf.int32
        assert len(set(y.numpy().tolist())) == 3 and set(np.bincount(y.numpy()).tolist()) <= {0, 2}
        np.testing.assert_array_equal(whole.labels[x.numpy()[:, 0, 0, 0].astype(int)], y)
    assert whole.batches(classes=3, images=2).cardinality() == len(batches)


def test_every_class_comes_once_before_any_repeats():
    labels = np.repeat(np.arange(10), 7)
    sampler = ClassSampler(labels, classes=4, images=2, seed=3)
    stream = np.concatenate([labels[b.indices[::2]] for b in sampler.epoch(0)])
    assert len(stream) >= 10
    for start in range(0, len(stream) - 9, 10):
        assert sorted(stream[start : start + 10]) == list(range(10))
    for batch in sampler.epoch(5):
        assert len(set(labels[batch.indices])) == 4


def test_images_of_a_class_come_once_before_any_repeats():
    labels = np.repeat(np.arange(2), [6, 6])
    sampler = ClassSampler(labels, classes=2, images=4, seed=0)
    drawn = np.concatenate([b.indices for b in sampler.epoch(0)])
    sampler_long = ClassSampler(labels, classes=2, images=3, seed=0)
    twice = [b.indices for b in sampler_long.epoch(0)]
    assert len(set(drawn.tolist())) == len(drawn) or len(drawn) > 12
    assert sorted(np.concatenate(twice).tolist()) == list(range(12))


def test_many_labels_are_sorted_in_pieces(monkeypatch):
    monkeypatch.setattr("tf_detreg.datasets.sampler._PIECE", 7)
    labels = np.random.default_rng(0).integers(0, 9, 100)
    labels[labels == 4] = 5  # a class without images
    drawn = [b.indices for b in ClassSampler(labels, classes=8, images=1, seed=0).epoch(0)]
    pieces = ClassSampler(labels, classes=8, images=100, seed=0)
    np.testing.assert_array_equal(pieces._members, np.argsort(labels, kind="stable"))
    assert all(sorted(labels[indices]) == [0, 1, 2, 3, 5, 6, 7, 8] for indices in drawn)


def test_a_small_class_repeats_its_images():
    for indices in (b.indices for b in ClassSampler([0, 1, 1, 1], classes=2, images=4, seed=0).epoch(2)):
        assert (indices == 0).sum() == 4
        assert set(indices[indices > 0]) == {1, 2, 3}


def test_an_epoch_follows_from_seed_and_number_alone():
    whole, arguments = toy(), {"classes": 2, "images": 2, "seed": 7}
    running = whole.batches(**arguments)
    epochs = [contents(running) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert contents(whole.batches(**arguments, first_epoch=2)) == epochs[2]
    assert contents(whole.batches(classes=2, images=2, seed=8)) != epochs[0]


def test_a_peek_does_not_use_up_an_epoch():
    whole = toy()
    peeked = whole.batches(classes=2, images=2, seed=0)
    next(iter(peeked))
    assert contents(peeked) == contents(whole.batches(classes=2, images=2, seed=0))


def test_augmentation_follows_from_the_epoch():
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomTranslation(0.4, 0.4)])
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
    whole = ImageSet(labels=np.repeat([0, 1, 2], 4), class_names="abc", images=images)
    running = whole.batches(3, 2, seed=1, augment=augment)
    first, second = (np.concatenate([x for x, _ in running]) for _ in range(2))
    again = np.concatenate([x for x, _ in whole.batches(3, 2, seed=1, augment=augment, first_epoch=1)])
    np.testing.assert_array_equal(second, again)
    plain = np.concatenate([x for x, _ in whole.batches(3, 2, seed=1)])
    assert np.abs(first - plain).max() > 1

    def shift(x, seed):
        return x + tf.random.stateless_uniform((), seed)

    a, b = (next(iter(whole.batches(3, 4, seed=1, augment=shift)))[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_fit_reads_epochs_in_order():
    whole = toy()
    seen = []

    class Spy(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda x: seen.append(x[:, 0, 0, 0].numpy().astype(int).tolist()), [data[0]], [])
            return {"loss": 0.0}

    model = Spy()
    model.compile()
    model.fit(whole.batches(classes=2, images=2, seed=4), epochs=2, verbose=0)
    expected = [x for e in (0, 1) for x, _ in contents(whole.batches(classes=2, images=2, seed=4, first_epoch=e))]
    assert seen == expected


def test_more_classes_than_there_are_is_lowered_with_a_warning(caplog):
    x, _ = next(iter(toy().batches(classes=32, images=2)))
    assert len(x) == 10 and "5 classes" in caplog.text


class SlowToBegin:
    """Rows that are their indices, of which the first to be asked for come after the next ones."""

    may_fail = False

    def __init__(self):
        self.asked, self.next_ones = 0, threading.Event()

    def finish_epoch(self):
        pass

    def read(self, indices):
        self.asked += 1
        if self.asked == 1:
            self.next_ones.wait(5.0)
            time.sleep(0.1)
        else:
            self.next_ones.set()
        return indices

    def load(self, indices, seed):
        rows = tf.numpy_function(self.read, [indices], tf.int64)
        rows.set_shape(indices.shape)
        return rows, tf.cast(rows, tf.int32), tf.ones_like(rows, tf.bool)


def test_what_is_slow_to_load_is_not_overtaken():
    for what in ("labels", "indices"):
        ordered = batches.ordered_rows(12, SlowToBegin(), 2, what)
        assert [(x.numpy().tolist(), y.numpy().tolist()) for x, y in ordered] == [
            ([i, i + 1],) * 2 for i in range(0, 12, 2)
        ]
    drawn = ClassSampler(np.repeat(np.arange(4), 6), classes=2, images=2, seed=0)
    trained = batches.epoch_batches(drawn, SlowToBegin(), lambda rows, seed: rows, 0)
    assert [y.numpy().tolist() for _, y in trained] == [batch.indices.tolist() for batch in drawn.epoch(0)]


def test_ordered_gives_every_image_once_at_any_size():
    whole = toy()
    x, y = (np.concatenate(part) for part in zip(*whole.ordered(batch_size=4, image_size=3), strict=True))
    assert x.shape == (19, 3, 3, 3) and x.dtype == np.float32
    np.testing.assert_array_equal(y, whole.labels)
    np.testing.assert_allclose(x[:, 0, 0, 0], np.arange(19), atol=1e-4)
    indices = np.concatenate([i for _, i in whole.indexed(batch_size=4)])
    np.testing.assert_array_equal(indices, np.arange(19))


def test_an_unreadable_file_is_replaced_counted_and_named(tmp_path, caplog):
    whole = file_set(tmp_path, broken=(4,))
    batches = whole.batches(classes=3, images=4, seed=0, max_unreadable=0.1)
    for x, y in batches:
        shown = x.numpy()[:, 0, 0, 0].astype(int)
        assert x.shape == (12, 4, 4, 3) and 4 not in shown
        np.testing.assert_array_equal(whole.labels[shown], y)
    assert "1 unreadable images" in caplog.text and "4.png" in caplog.text


def test_too_many_unreadable_files_stop_the_run(tmp_path):
    whole = file_set(tmp_path, broken=(1, 4, 6))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"more than the stated share of 10\.0%"):
        list(whole.batches(classes=3, images=4, max_unreadable=0.1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"more than the stated share of 5\.0%"):
        list(whole.batches(classes=3, images=4))


def test_ordered_leaves_unreadable_files_out(tmp_path):
    whole = file_set(tmp_path, broken=(0, 5))
    x, i = (np.concatenate(part) for part in zip(*whole.indexed(batch_size=5), strict=True))
    assert i.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(x[:, 0, 0, 0].astype(int), i)


def test_random_crops_follow_from_the_seed(tmp_path):
    gradient = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (40, 1, 3))
    for i in range(4):
        Image.fromarray(gradient).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    whole = ImageSet(labels=[0, 0, 1, 1], class_names="ab", paths=paths, image_size=8)
    a, b = (next(iter(whole.batches(2, 2, seed=3, crop=RandomCrop(scale=(0.1, 0.5)))))[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert len(np.unique(a[:, 0, 0, 0])) > 1
    with pytest.raises(ValueError, match="`crop` cuts while decoding"):
        toy().batches(2, 2, crop=RandomCrop())


@pytest.mark.parametrize("arguments", [{"classes": -1}, {"images": 0}, {"image_size": 0}, {"augment": 3}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        toy().batches(**arguments)


def test_digits_split_by_image():
    train, validation, test = datasets.digits()
    assert len(train) + len(validation) + len(test) == 1797
    assert train.images.shape[1:] == (8, 8, 3) and train.images.max() == 255
    assert set(test.labels) == set(range(10))


def test_an_epoch_ends_with_the_arrival_of_its_last_batch():
    class Source:
        ended = 0

        def finish_epoch(self):
            self.ended += 1

    source = Source()
    assert [int(batches._finish_at(np.int64(latest), 3, source)) for latest in (0, 1)] == [0, 0] and source.ended == 0
    batches._finish_at(np.int64(2), 3, source)
    assert source.ended == 1

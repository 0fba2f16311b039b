"""The fast way from JPEG files to training pixels, held to the way that evaluation takes."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_detreg import datasets
from tf_detreg.datasets import ImageSet, RandomCrop
from tf_detreg.images import training
from tf_detreg.images.geometry import DRAWS
from tf_detreg.images.training import JpegPlanner, decode_windows, header_of


def scene(width, height):
    """Smooth, with another colour in each corner, so that neither cut nor turn goes unseen."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray(np.uint8(255 * np.stack([x, y, 0.5 + 0.5 * np.sin(4 * x * y)], -1)))


def save(path, image, orientation=None, **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x010F] = "maker"
        exif[0x0112] = orientation
    image.save(path, format="JPEG", exif=exif, quality=95, subsampling=0, **options)
    return str(path)


def fast(paths, size, crop=None, draws=None):
    draws = np.zeros((len(paths), DRAWS)) if draws is None else draws
    planned = JpegPlanner(paths, size, crop).plan(np.arange(len(paths)), draws)
    images, kept = decode_windows(*map(tf.constant, planned), size)
    return images.numpy(), kept.numpy()


@pytest.mark.parametrize("sides", [(31, 23), (20, 50), (160, 120), (517, 311)])
@pytest.mark.parametrize("size", [(16, 16), (24, 12)])
def test_upright_and_turned_pictures_are_those_of_evaluation(sides, size, tmp_path):
    paths = [save(tmp_path / "0.jpg", scene(*sides))]
    paths += [save(tmp_path / f"{turn}.jpg", scene(*sides), turn) for turn in range(1, 9)]
    wanted = np.stack([datasets.decode(path, size) for path in paths]).astype(float)
    images, kept = fast(paths, size)
    assert kept.all() and images.dtype == np.float32
    # Half a pixel of a picture of 16 is 8 of 255.
    assert np.abs(images - wanted).max() < 14 and np.abs(images - wanted).mean() < 2.5
    alone, _ = fast(paths[:1], size)  # all of one kind
    np.testing.assert_allclose(alone[0], images[0], atol=1e-3)


def test_random_crops_lie_where_those_of_pillow_lie(tmp_path):
    class Drawn:
        def __init__(self, draws):
            self.random = lambda count: draws

    paths = [save(tmp_path / f"{turn}.jpg", scene(600, 400), turn) for turn in (1, 3, 6, 7) * 8]
    crop, draws = RandomCrop(scale=(0.05, 1.0)), np.random.default_rng(0).random((len(paths), DRAWS))
    images, kept = fast(paths, (64, 64), crop, draws)
    wanted = [datasets.decode(path, (64, 64), crop, Drawn(row)) for path, row in zip(paths, draws, strict=True)]
    assert kept.all()
    assert np.abs(images - np.stack(wanted)).mean(axis=(1, 2, 3)).max() < 2.5


def test_grey_and_progressive_files_are_plain(tmp_path):
    paths = [save(tmp_path / "grey.jpg", scene(160, 160).convert("L"))]
    paths += [save(tmp_path / "progressive.jpg", scene(160, 160), progressive=True)]
    images, kept = fast(paths, (32, 32))
    assert kept.all()
    np.testing.assert_allclose(images, [datasets.decode(path, (32, 32)) for path in paths], atol=8)


def test_a_size_is_traced_once_however_many_sets_are_read(tmp_path, monkeypatch):
    training._graph.cache_clear()
    traced, trace = [], training._decode_windows
    monkeypatch.setattr(training, "_decode_windows", lambda *planned: traced.append(planned[-1]) or trace(*planned))
    paths = [save(tmp_path / f"{i}.jpg", scene(9, 9)) for i in range(4)]
    for size in (5, 6, 5):
        images = ImageSet(labels=[0, 0, 1, 1], class_names="ab", paths=paths, image_size=size)
        ((batch, _),) = images.batches(2, 2)
        assert batch.shape == (4, size, size, 3)
    assert traced == [(5, 5), (6, 6)]


def test_a_header_says_what_the_file_is(tmp_path):
    whole = save(tmp_path / "a.jpg", scene(30, 20), 6)
    assert header_of(whole) == (30, 20, 6)
    content = pathlib.Path(whole).read_bytes()
    for name, changed in {
        "cut": content[: len(content) // 2],
        "text": b"no picture",
        "empty": b"",
        "start": content[:12],
        "length": b"\xff\xd8\xff\xe1\0\0" + content[6:],
    }.items():
        (tmp_path / name).write_bytes(changed)
        assert header_of(str(tmp_path / name)) is None, name
    (tmp_path / "exif").write_bytes(content.replace(b"MM\0*", b"XX\0*"))
    assert header_of(str(tmp_path / "exif")) == (30, 20, 1)
    assert header_of(save(tmp_path / "cmyk.jpg", scene(30, 20).convert("CMYK"))) is None
    assert header_of(str(tmp_path / "nowhere.jpg")) is None


def test_a_batch_of_everything(tmp_path, caplog):
    """Plain ones go the fast way, others the slow one; broken ones are replaced, counted and named."""
    for i in range(12):
        image = Image.new("RGB", (9, 7), (20 * i, 20 * i, 20 * i))
        if i % 3 == 0:
            save(tmp_path / f"{i}.jpg", image)
        else:
            image.convert("CMYK" if i % 3 == 1 else "RGB").save(
                tmp_path / f"{i}.jpg", format=("JPEG", "PNG")[i % 3 - 1]
            )
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, format="JPEG")
    # Whole by its first and last bytes, and yet not to be decoded: the frame says three colours, the scan has one.
    broken = bytearray(file.getvalue()[:300] + b"\xff\xd9")
    (tmp_path / "3.jpg").write_bytes(broken)
    (tmp_path / "7.jpg").unlink()
    paths = [str(tmp_path / f"{i}.jpg") for i in range(12)]
    labels = np.arange(12) % 2
    whole = ImageSet(labels=labels, class_names="ab", paths=paths, image_size=4)
    seen = set()
    for images, found in whole.batches(classes=2, images=6, max_unreadable=0.2):
        shown = np.rint(images.numpy()[:, 0, 0, 0] / 20).astype(int)
        np.testing.assert_array_equal(labels[shown], found)
        seen |= set(shown.tolist())
    assert seen == set(range(12)) - {3, 7}
    assert "2 unreadable images" in caplog.text and "3.jpg" in caplog.text and "7.jpg" in caplog.text


def test_ordered_names_what_it_left_out_once_at_the_end(tmp_path, caplog):
    paths = [save(tmp_path / f"{i}.jpg", scene(9, 9)) for i in range(5)]
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    whole = ImageSet(labels=np.zeros(5, int), class_names="a", paths=paths, image_size=4, name="photos")
    rows = whole.ordered(batch_size=2)
    for _ in range(2):
        assert sum(len(labels) for _, labels in rows) == 4
    summaries = [record for record in caplog.records if "1 unreadable images of photos" in record.getMessage()]
    assert len(summaries) == 1 and "2.jpg" in summaries[0].getMessage()

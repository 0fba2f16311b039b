"""Every file that is left out is counted, named and listed with its reason, by data sets and by indexes alike."""

import numpy as np
import pytest
from PIL import Image

from tests.images import corpus
from tf_detreg import datasets, searching
from tf_detreg.images import formats


class Embedder:
    input_shape = (None, 8, 8, 3)


@pytest.fixture
def photos(tmp_path):
    for kind in "abcd":
        (tmp_path / kind).mkdir()
        for at in range(3):
            Image.fromarray(corpus.scene()).save(tmp_path / kind / f"{at}.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "drawing.svg").write_text("<svg/>")
    (tmp_path / "b" / ".hidden.jpg").write_text("hidden")
    (tmp_path / "b" / "broken.jpg").write_bytes(corpus.jpeg()[:100])
    (tmp_path / "c" / "script.jpg").write_bytes(b"%!PS-Adobe-3.0")
    (tmp_path / "c" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tmp_path / "c" / "web.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(64))
    return tmp_path


REASONS = {
    "notes.txt": "no image by its name",
    "drawing.svg": "no image by its name",
    "broken.jpg": "cut off",
    "script.jpg": "no JPEG",
    "phone.heic": "tf-detreg[heif]",
    "web.avif": "Pillow with AVIF",
}


def test_data_sets_and_indexes_list_the_same_files(photos, caplog, monkeypatch):
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG", "PNG"))
    train = datasets.folder(photos, image_size=8).train
    files = searching.image_files([photos], Embedder)
    for image_set in (train, files):
        skipped = {path.rsplit("/", 1)[1]: reason for path, reason in image_set.skipped}
        assert skipped.keys() == REASONS.keys()
        assert all(REASONS[name] in reason for name, reason in skipped.items())
    assert len(files) == 12
    for name in REASONS:
        assert caplog.text.count(name) >= 2
    assert "left out 4 of 16 files" in caplog.text and "1 × .svg" in caplog.text


def test_what_a_decoder_is_there_for_is_read(photos):
    if "HEIF" not in formats.readable_formats():
        pytest.skip("needs pillow-heif")
    (photos / "c" / "phone.heic").write_bytes(corpus.saved(corpus.scene(64, 48), "HEIF"))
    files = searching.image_files([photos], Embedder)
    assert [path for path in files.paths if path.endswith("phone.heic")]
    at = [path.endswith("phone.heic") for path in files.paths].index(True)
    assert np.std(next(iter(files.subset([at]).ordered()))[0]) > 20

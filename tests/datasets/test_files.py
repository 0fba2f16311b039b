"""Folders, tables, arrays, and every kind of picture file."""

import importlib
import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from tests.datasets.trees import picture
from tests.pictures import encode
from tf_detreg import datasets
from tf_detreg.datasets.paths import PathList
from tf_detreg.images.formats import readable_formats


@pytest.fixture
def photos(tmp_path):
    for c in range(6):
        for i in range(3):
            picture(tmp_path / f"class{c}" / f"{i}.jpg", 40 * c + i, size=(12 + i, 9 + c))
    return tmp_path


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def test_folder_splits_by_class(photos):
    train, validation, test = datasets.folder(photos, image_size=8)
    names = [set(s.class_names) for s in (train, validation, test)]
    assert set.union(*names) == {f"class{c}" for c in range(6)} and sum(map(len, names)) == 6
    for x, y in train.ordered():
        np.testing.assert_allclose(x[:, 0, 0, 0] // 40, [int(train.class_names[c][-1]) for c in y], atol=0.01)


def test_folder_with_its_own_splits(tmp_path):
    for part in ("train", "test"):
        for c in range(4):
            picture(tmp_path / part / f"{part}{c}" / "deep" / "a.png")
    splits = datasets.folder(tmp_path, image_size=8)
    assert set(splits.test.class_names) == {f"test{c}" for c in range(4)}
    assert splits.train.num_classes + splits.validation.num_classes == 4 and len(splits.validation) > 0


def test_folder_leaves_out_what_is_no_picture(photos, caplog):
    (photos / "class0" / "note.jpg").write_text("a text file named .jpg")
    (photos / "class1" / "empty.png").touch()
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)), format="PNG")
    (photos / "class2" / "cut.png").write_bytes(whole[:700])
    (photos / "class3" / "readme.txt").write_text("not meant as a picture")
    (photos / "class4" / ".hidden.jpg").write_text("x")
    splits = datasets.folder(photos, image_size=8)
    assert sum(map(len, splits)) == 18
    left_out = {path.rsplit("/", 1)[1] for path, _ in splits.train.skipped}
    assert left_out == {"note.jpg", "empty.png", "cut.png", "readme.txt"}
    assert "3 of 21 files" in caplog.text and "note.jpg" in caplog.text and "cut off" in caplog.text


def test_a_class_of_one_image_is_kept_and_reported(photos, caplog):
    picture(photos / "lonely" / "only.png")
    (photos / "nothing").mkdir()
    splits = datasets.folder(photos, image_size=8)
    assert "lonely" in {n for s in splits for n in s.class_names}
    assert "single picture (kept): lonely" in caplog.text and "left out: nothing" in caplog.text


def test_names_in_any_script(tmp_path):
    names = ["日本 語", "Ünïcödé", "🙂", 'a\'b "c" #%', "العربية"]
    for name in names:
        picture(tmp_path / name / f"{name}.png")
        picture(tmp_path / name / "2.png")
    splits = datasets.folder(tmp_path, image_size=8)
    assert {n for s in splits for n in s.class_names} == set(names)
    assert sum(len(y) for s in splits for _, y in s.ordered()) == 10


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_that_are_no_unicode(photos):
    """As old archives unpack: bytes of another encoding, which cannot be written down as they are."""
    for old, new in ((b"class0", b"caf\xe9"), (b"class1/0.jpg", b"class1/\xe9.jpg")):
        os.rename(os.path.join(os.fsencode(photos), old), os.path.join(os.fsencode(photos), new))
    splits = datasets.folder(photos, image_size=8)
    names = {name for part in splits for name in part.class_names}
    assert "caf\\xe9" in names and "\n".join(names).encode("utf-8")
    assert sum(len(y) for part in splits for _, y in part.ordered()) == 18


def test_what_is_no_file_is_no_picture(photos):
    os.mkfifo(photos / "class0" / "pipe.jpg")
    os.symlink("0.jpg", photos / "class0" / "link.jpg")
    os.symlink("nowhere.jpg", photos / "class0" / "dangling.jpg")
    os.symlink(".", photos / "class0" / "loop")
    splits = datasets.folder(photos, image_size=8)
    assert sum(map(len, splits)) == 19
    assert {os.path.basename(path) for path, _ in splits.train.skipped} == {"pipe.jpg", "dangling.jpg"}
    with pytest.raises(datasets.UnreadableImage, match="not a file"):
        datasets.decode(str(photos / "class0" / "pipe.jpg"), (8, 8))


def test_a_picture_of_a_hundred_megapixels_is_left_out_unread(photos, recwarn):
    readable_formats.cache_clear()  # pytest has set back what it did
    large = encoded(Image.new("1", (10_000, 10_000)), format="PNG")
    (photos / "class0" / "large.png").write_bytes(large)
    splits = datasets.folder(photos, image_size=8)
    assert sum(map(len, splits)) == 18
    assert "more than the limit" in dict(splits.train.skipped)[str(photos / "class0" / "large.png")]
    assert not [str(w.message) for w in recwarn if "bomb" in str(w.message)]


def test_folder_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        datasets.folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no pictures in class folders"):
        datasets.folder(tmp_path)
    picture(tmp_path / "loose.jpg")
    with pytest.raises(ValueError, match="1 pictures lie beside"):
        datasets.folder(tmp_path)
    picture(tmp_path / "one" / "a.jpg")
    with pytest.raises(ValueError, match="at least two"):
        datasets.folder(tmp_path)
    picture(tmp_path / "two" / "a.jpg")
    with pytest.raises(
        ValueError, match=r"too few to split by class: 1 for validation and 1 for testing.*four or more"
    ):
        datasets.folder(tmp_path)


def test_csv_with_and_without_splits(photos):
    rows = [f"class{c}/{i}.jpg,class{c},{i}" for c in range(6) for i in range(3)]
    (photos / "list.csv").write_text("path,label,group\n" + "\n".join(rows))
    splits = datasets.csv(photos / "list.csv", image_size=8)
    assert sum(map(len, splits)) == 18 and splits.train.groups.max() == 2
    parts = ["train", "train", "val", "val", "test", "test"]
    rows = [f"class{c}/{i}.jpg,class{c},{parts[c]}" for c in range(6) for i in range(3)]
    (photos / "list.csv").write_text("\ufeffpath,label,split\n" + "\n".join(rows), encoding="utf-8")
    splits = datasets.csv(photos / "list.csv", image_size=8)
    assert splits.test.class_names == ("class4", "class5")
    assert sum(len(y) for _, y in splits.test.ordered()) == 6


def test_csv_errors(photos, caplog):
    table = photos / "list.csv"
    table.write_text("file,label\na,b\n")
    with pytest.raises(ValueError, match="needs a column 'path'"):
        datasets.csv(table)
    table.write_text("path,label\nclass0/0.jpg,\n")
    with pytest.raises(ValueError, match="line 2"):
        datasets.csv(table)
    table.write_text("path,label\n")
    with pytest.raises(ValueError, match="lists no images"):
        datasets.csv(table)
    table.write_text("path,label,split\nclass0/0.jpg,a,exam\n")
    with pytest.raises(ValueError, match="'exam'"):
        datasets.csv(table)
    good = "".join(f"class{c}/{i}.jpg,{c}\n" for c in range(6) for i in range(3))
    table.write_text("path,label\n" + good + "gone.jpg,1\n")
    with pytest.raises(FileNotFoundError, match=r"lists 1 files of 19 .*\n.*gone\.jpg"):
        datasets.csv(table)
    assert sum(map(len, datasets.csv(table, image_size=8, max_missing=0.1))) == 18


def test_csv_leaves_out_what_is_no_picture(photos, caplog):
    rows = [f"class{c}/{i}.jpg,{c}" for c in range(6) for i in range(3)]
    (photos / "class0" / "note.jpg").write_text("a text file named .jpg")
    (photos / "class1" / "cut.png").write_bytes(encoded(Image.new("RGB", (30, 30)), format="PNG")[:-20])
    os.mkdir(photos / "class2" / "folder.jpg")
    left_out = ["class0/note.jpg", "class1/cut.png", "class2/folder.jpg"]
    table = photos / "list.csv"
    table.write_text("\n".join(["path,label", *rows, *(f"{file},1" for file in left_out)]))
    splits = datasets.csv(table, image_size=8)
    assert sum(map(len, splits)) == 18
    skipped = dict(splits.test.skipped)
    assert skipped.keys() == {str(photos / file) for file in left_out}
    assert "cut off" in skipped[str(photos / "class1" / "cut.png")] and "missing" not in skipped.values()
    assert "3 of 21 files" in caplog.text and "note.jpg" in caplog.text
    table.write_text("\n".join(["path,label", *(f"{file},1" for file in left_out)]))
    with pytest.raises(ValueError, match="lists no readable images: all 3 files"):
        datasets.csv(table)


def test_csv_that_is_no_table_in_utf8(photos):
    table = photos / "list.csv"
    rows = "path,label\nclass0/0.jpg,café\n"
    for text, message in (
        (rows.encode("latin-1"), "is not UTF-8 .byte 0xe9"),
        (rows.encode("utf-16"), "is not UTF-8"),
        (b"path;label\na;b\n", "commas between columns; found .*path;label"),
        (b"path,label\na.jpg,b\n\n ,b\n", "line 4: path or label is empty"),
        (b"path,label\na\0.jpg,b\n", "zero byte"),
        (b"path,label\n" + b"x" * 200_000 + b",b\n", "field larger"),
    ):
        table.write_bytes(text)
        with pytest.raises(ValueError, match=message):
            datasets.csv(table)


def test_csv_names_files_that_are_listed_again(photos, caplog):
    rows = [f"class{c}/{i}.jpg,class{c}" for c in range(6) for i in range(3)]
    (photos / "list.csv").write_text("\n".join(["path,label", *rows, rows[0], "class1/1.jpg,class5"]))
    assert sum(map(len, datasets.csv(photos / "list.csv", image_size=8))) == 20
    assert (
        "2 of 20 files are there again, under another name, as a link or as a copy; 1 under two labels" in caplog.text
    )


def test_arrays_take_any_labels():
    x = np.zeros((12, 4, 4), np.uint8)
    splits = datasets.arrays(x, np.repeat([7, 3, 100, -5], 3), groups=["x", "y", "z"] * 4)
    assert {n for s in splits for n in s.class_names} == {"7", "3", "100", "-5"}
    with pytest.raises(ValueError, match="uint8"):
        datasets.arrays(x.astype(float), np.repeat([0, 1], 6))


PIXELS = np.zeros((4, 8, 8, 3), np.uint8)
MADE = datasets.ImageSet(labels=[0, 0, 1, 1], class_names=["a", "b"], images=PIXELS)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: datasets.ImageSet([0, 2**32], ["a"], PIXELS[:2]),
            "`labels` must fit into int32; received 0 to 4294967296",
        ),
        (lambda: datasets.ImageSet([0], ["a"], paths="a", image_size=8), "`paths` must be a list.* 'a'"),
        (lambda: datasets.arrays(PIXELS, [None, "a", 1, 2]), "`labels` holds values that cannot be sorted"),
        (lambda: datasets.arrays(PIXELS, [0.0, 1.0, np.nan, np.nan]), "`labels` must be a vector without NaN"),
        (lambda: datasets.arrays(PIXELS, range(4), groups=np.eye(4)), "`groups` must be a vector"),
        (lambda: datasets.arrays(PIXELS, range(4), validation=np.nan), "`validation` and `test` must be shares"),
        (lambda: MADE.batches(image_size=8.5), "`image_size` must be a positive integer.*8.5"),
        (lambda: MADE.batches(classes=1.5), "`classes` must be a whole number.*1.5"),
    ],
)
def test_what_is_wrong_is_named(act, message):
    with pytest.raises(ValueError, match=message):
        act()


SIXTEEN = Image.fromarray(np.full((6, 6), 200 * 257, np.uint16))
KINDS = {
    "grey": (Image.new("L", (6, 6), 200), "PNG"),
    "grey jpeg": (Image.new("L", (6, 6), 200), "JPEG"),
    "sixteen bits": (SIXTEEN, "PNG"),
    "sixteen bits tiff": (SIXTEEN, "TIFF"),
    "palette": (Image.new("RGB", (6, 6), (200, 200, 200)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "bilevel": (Image.new("1", (6, 6), 1), "PNG"),
    "cmyk": (Image.new("CMYK", (6, 6), (0, 0, 0, 55)), "JPEG"),
    "one pixel": (Image.new("RGB", (1, 1), (200, 200, 200)), "PNG"),
    "webp": (Image.new("RGB", (6, 6), (200, 200, 200)), "WEBP"),
    "gif": (Image.new("RGB", (6, 6), (200, 200, 200)), "GIF"),
    "opaque": (Image.new("RGBA", (6, 6), (200, 200, 200, 255)), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(kind):
    image, form = KINDS[kind]
    pixels = datasets.decode(encoded(image, format=form), (5, 7))
    assert pixels.shape == (5, 7, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, 255 if kind == "bilevel" else 200, atol=3)


def test_transparent_is_white():
    half = Image.new("RGBA", (6, 6), (0, 0, 0, 0))
    assert datasets.decode(encoded(half, format="PNG"), (6, 6)).min() == 255
    grey = Image.new("LA", (6, 6), (0, 127))
    np.testing.assert_allclose(datasets.decode(encoded(grey, format="PNG"), (6, 6)), 128, atol=1)


def test_center_crop_keeps_proportions():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert datasets.decode(encoded(Image.fromarray(pixels), format="PNG"), (10, 10)).min() == 255


def test_a_large_jpeg_is_the_same_whether_decoded_small_or_whole():
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    image = Image.fromarray(
        np.stack([np.tile(ramp, (1024, 1)), np.tile(ramp[:, None], (1, 1024)), np.full((1024, 1024), 9, np.uint8)], -1)
    )
    small = datasets.decode(encoded(image, format="JPEG", quality=95), (64, 64)).astype(int)
    whole = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    np.testing.assert_allclose(small, whole, atol=4)


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff\xe0"])
def test_unreadable_says_so(data, tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(data)
    with pytest.raises(datasets.UnreadableImage, match=r"x\.jpg"):
        datasets.decode(str(file), (4, 4))
    photo = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), format="JPEG")
    with pytest.raises(datasets.UnreadableImage):
        datasets.decode(photo[: len(photo) // 2], (4, 4))


def test_decode_takes_a_side_and_a_crop_alone(photos):
    file = next(photos.rglob("*.*"))
    assert datasets.decode(file, 4).shape == (4, 4, 3)
    assert datasets.decode(str(file), (4, 6), datasets.RandomCrop()).shape == (4, 6, 3)
    with pytest.raises(ValueError, match="`image_size` must be a positive integer"):
        datasets.decode(str(file), 0)


def test_a_folder_is_named_also_from_within(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert datasets.folder(".", 8).train.name == datasets.folder(photos, 8).train.name


def test_path_list_is_a_list():
    names = ["a/ä.jpg", "b", "", "日本/x.png"]
    paths = PathList(names)
    assert list(paths) == names and len(paths) == 4 and paths[-1] == names[-1]
    assert list(paths.take([3, 0, 3])) == [names[3], names[0], names[3]]
    assert list(paths[1:3]) == names[1:3]
    with pytest.raises(IndexError):
        paths[4]


def test_a_long_path_list_is_a_list_too():
    names = [f"{'ä' * (i % 7)}{i}" for i in range(300)]
    paths = PathList(names, root="photos")
    assert list(paths) == [f"photos/{name}" for name in names]
    indices = np.random.default_rng(0).integers(0, 300, 70_000)
    taken = paths.take(indices)
    assert list(taken) == [f"photos/{names[i]}" for i in indices]
    assert list(taken.take(np.arange(69_999, 0, -1000))) == [taken[i] for i in range(69_999, 0, -1000)]


def test_two_folders_with_pictures_are_enough_and_one_is_not(tmp_path):
    for kind in ("one", "two"):
        for part in ("train", "validation", "test"):
            (tmp_path / part / kind).mkdir(parents=True)
            (tmp_path / part / kind / "0.png").write_bytes(encode(np.full((8, 8, 3), 90, np.uint8)))
    assert [part.num_classes for part in datasets.folder(tmp_path, image_size=8)] == [2, 2, 2]
    (tmp_path / "train" / "two" / "0.png").unlink()
    with pytest.raises(ValueError, match="has 1 class with pictures"):
        datasets.folder(tmp_path, image_size=8)


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

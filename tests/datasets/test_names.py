"""One class has one name, and a picture that is there twice is told: else a split leaks."""

import logging
import os
import shutil

import numpy as np
import pytest

from tests.datasets.trees import picture
from tf_detreg import datasets
from tf_detreg.datasets import names
from tf_detreg.datasets.names import normal_name
from tf_detreg.datasets.repeats import repeated

NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("name", [NFC, NFD, f" {NFD}", f"{NFC}\t", f"\u00a0{NFC}\u3000"])
def test_spellings_of_one_name(name):
    assert normal_name(name) == NFC


def listed(root, rows, **options):
    header = "path,label,split" if rows[0].count(",") == 2 else "path,label"
    (root / "list.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return datasets.csv(root / "list.csv", image_size=8, **options)


@pytest.fixture
def photos(tmp_path):
    for i in range(12):
        picture(tmp_path / f"{i}.png", 10 * i)
    return tmp_path


def names_of(splits):
    return sorted(name for part in splits for name in part.class_names)


def test_csv_labels_that_differ_in_white_space_or_form_are_one_class(photos, caplog):
    labels = [NFC, NFD, f" {NFC}", "red  fox", "red fox ", "red fox", *"abc" * 2]
    splits = listed(photos, [f"{i}.png,{label}" for i, label in enumerate(labels)])
    assert names_of(splits) == ["a", "b", "c", NFC, "red fox"]
    assert sum(map(len, splits)) == 12
    assert "4 names differ from another in white space or Unicode form only" in caplog.text
    assert "'caf\\xe9' = 'cafe\\u0301'" in caplog.text


def test_csv_labels_that_differ_in_case_are_named_and_counted(photos, caplog):
    rows = [f"{i}.png,{label},{part}" for i, (label, part) in enumerate([*[("Fox", "train"), ("bee", "train")] * 3])]
    rows += [f"{i}.png,{label},{part}" for i, (label, part) in enumerate([*[("fox", "test"), ("cat", "test")] * 3], 6)]
    splits = listed(photos, rows)
    assert splits.train.class_names == ("Fox", "bee") and splits.test.class_names == ("cat", "fox")
    assert "1 classes differ from another in upper and lower case only" in caplog.text
    assert "'Fox' (3) and 'fox' (3)" in caplog.text


def test_clean_labels_are_not_talked_of(photos, caplog):
    listed(photos, [f"{i}.png,{'abcd'[i % 4]}" for i in range(12)])
    assert not caplog.text


def test_csv_finds_a_file_by_its_path_and_by_its_content(photos, caplog):
    os.symlink(photos / "0.png", photos / "link.png")
    shutil.copyfile(photos / "1.png", photos / "copy.png")
    rows = [f"{i}.png,{'abcd'[i % 4]},{'train' if i < 8 else 'test'}" for i in range(12)]
    rows += ["./3.png,d,train", "link.png,a,test", "copy.png,c,train", "copy.png,c,train"]
    splits = listed(photos, rows)
    assert len(splits.train) + len(splits.test) == 16  # all kept
    assert "4 of 16 files are there again" in caplog.text
    assert "1 under two labels, 1 in two parts of the split" in caplog.text
    # The worst come first.
    shown = caplog.text.split("(all kept):\n  ")[1].splitlines()
    assert "1.png (b)" in shown[0] and "copy.png (c)" in shown[0] and len(shown) == 3


def test_folders_of_one_name_are_one_class(tmp_path, caplog):
    for number, name in enumerate((NFC, NFD, "bee", "Bee", "cat", "dog")):
        for i in range(2):
            picture(tmp_path / name / f"{i}.png", 20 * number + i)
    if len(os.listdir(tmp_path)) < 6:
        pytest.skip("this file system joins such names by itself")
    picture(tmp_path / "dog" / "again.png", 20 * 4)  # a cat
    splits = datasets.folder(tmp_path, image_size=8)
    assert names_of(splits) == sorted([NFC, "bee", "Bee", "cat", "dog"])
    (part, label) = next((part, part.class_names.index(NFC)) for part in splits if NFC in part.class_names)
    assert (part.labels == label).sum() == 4
    assert "1 names differ" in caplog.text and "'Bee' (2) and 'bee' (2)" in caplog.text
    assert "1 of 13 files are there again" in caplog.text and "1 under two labels" in caplog.text


def test_names_agree_between_the_folders_of_a_split(tmp_path):
    for part, name in (("train", NFC), ("train", "bee"), ("test", NFD), ("test", "cat")):
        for i in range(2):
            picture(tmp_path / part / name / f"{part}{i}.png", 10 * i)
    splits = datasets.folder(tmp_path, image_size=8, validation=0)
    assert NFC in splits.train.class_names and NFC in splits.test.class_names


def test_arrays_too():
    labels = np.repeat([NFC, NFD, "a", "b", " b"], 2)
    splits = datasets.arrays(np.zeros((10, 4, 4), np.uint8), labels, validation=0, test=0.4)
    assert names_of(splits) == ["a", "b", NFC]


def test_files_that_only_begin_alike_are_different(tmp_path):
    big = np.random.default_rng(0).bytes(30_000)
    middle = bytearray(big)
    middle[15_000] ^= 1
    for name, content in (("a", big), ("b", bytes(middle)), ("c", big[:-1] + b"!"), ("d", big), ("e", b""), ("f", b"")):
        (tmp_path / name).write_bytes(content)
    os.link(tmp_path / "b", tmp_path / "h")
    paths = [str(tmp_path / name) for name in "abcdefh"] + [str(tmp_path / "missing")] * 2
    # Empty files say nothing; a missing one is the same under the same name.
    assert list(repeated(paths)) == [[0, 3], [1, 6], [7, 8]]


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

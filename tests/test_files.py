"""Atomic writing: what stands under a name is always whole."""

import errno
import json
import os

import pytest

from tf_detreg import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "result.json"
    files.write_json(target, {"recall": 1})
    with pytest.raises(RuntimeError, match="disk"), files.replacing(target) as temporary:
        temporary.write_text("half of")
        raise RuntimeError("disk is full")
    assert json.loads(target.read_text()) == {"recall": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "model" / "1"
    for content in ("old", "new"):
        with files.replacing(target) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_a_full_disk_is_named_with_the_file(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: .*x'"), files.replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "x").read_text() == "old"


def test_a_folder_in_the_way_of_a_file_is_named_and_stays(tmp_path):
    (tmp_path / "x.txt").mkdir()
    for write in (files.check_file, lambda path: files.write_text(path, "text")):
        with pytest.raises(IsADirectoryError, match=r"folder is in the way.*x\.txt"):
            write(tmp_path / "x.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    files.write_text(tmp_path / ("ü" * 125 + ".txt"), "text")
    assert [len(path.name) for path in tmp_path.iterdir()] == [129]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(OSError, match="Choose another place") as caught:
        files.write_text(blocker / "sub" / "x.txt", "text")
    assert str(blocker) in str(caught.value)


def test_many_files_are_synced_at_once_where_the_system_can(tmp_path, monkeypatch):
    for number in range(4):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(files, "_SYNC_ALL", 4)
    done = []
    monkeypatch.setattr(os, "sync", lambda: done.append("all"), raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("one"))
    files.sync(tmp_path)  # the folder and four files
    assert done == ["all"]
    (tmp_path / "0").unlink()
    files.sync(tmp_path)
    assert done == ["all", *["one"] * 4]
    monkeypatch.delattr(os, "sync")
    (tmp_path / "0").touch()
    files.sync(tmp_path)
    assert done == ["all", *["one"] * 9]

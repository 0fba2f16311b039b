"""Parts of the index that only their own tests can tell apart: pickles, sizes, manifests, samples."""

import json
import pickle

import numpy as np
import pytest

from tf_detreg.index import Index, segments, trees, version_1


class Touches:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_segment_is_never_unpickled(tmp_path):
    (tmp_path / segments.FOLDER).mkdir()
    (tmp_path / segments.FOLDER / "0.npy").write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"0\.npy cannot be read"):
        segments.open_file(tmp_path, "0.npy", 1, 2)
    assert not (tmp_path / "ran").exists()


def test_the_size_on_disk_is_that_of_all_files(tmp_path):
    index = Index(np.eye(4), ids=list("abcd"))
    assert index.bytes_on_disk() == 0
    index.save(tmp_path / "i")
    with Index.load(tmp_path / "i") as loaded:
        files = [file for file in (tmp_path / "i").rglob("*") if file.is_file()]
        assert loaded.bytes_on_disk() == sum(file.stat().st_size for file in files) > 4 * 16


def test_a_sample_holds_live_items_alone():
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    removed = np.zeros(10, bool)
    removed[[0, 3]] = True

    class Base:
        count = 10

    base = Base()
    base.vectors, base.removed = vectors, removed
    rows, found = trees.sample(base, 5)
    assert len(rows) == 5 and (np.diff(rows) > 0).all() and not removed[rows].any()
    np.testing.assert_array_equal(found, vectors[rows])
    assert trees.sample(base)[0].tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
    base.removed = None
    assert trees.sample(base)[0].tolist() == list(range(10))


def test_a_manifest_of_version_0_1_names_the_model_and_all_files(tmp_path):
    entry = {"bytes": 1, "sha256": "0"}
    whole = {"format": version_1._FORMAT, "model": "m", "files": {name: entry for name in version_1._FILES}}
    (tmp_path / version_1.MANIFEST).write_text(json.dumps(whole))
    assert version_1._manifest(tmp_path) == whole
    lacking = [
        {key: value for key, value in whole.items() if key != "model"},
        {**whole, "files": {**whole["files"], version_1._FILES[0]: {"bytes": 1}}},
        {**whole, "files": {version_1._FILES[0]: entry}},
    ]
    for manifest in lacking:
        (tmp_path / version_1.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match="is damaged"):
            version_1._manifest(tmp_path)
    (tmp_path / version_1.MANIFEST).write_text(json.dumps({**whole, "format": 99}))
    with pytest.raises(ValueError, match="is an index of format 99"):
        version_1._manifest(tmp_path)

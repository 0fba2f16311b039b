"""Files of vectors are data: what is in one is never run."""

import pickle

import pytest

from tf_detreg.index import segments


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

"""Checkpoints are data: what is in one is never run."""

import json

import numpy as np
import pytest

from tf_detreg.training import checkpoint


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return type(self.folder).mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    path, ran = tmp_path / "epoch-0001.npz", tmp_path / "ran"
    notes = np.array(json.dumps({"epoch": 1}))
    np.savez(path, notes=notes, **{"model/00000": np.array(Evil(ran), dtype=object)})
    with pytest.raises(ValueError, match=r"epoch-0001\.npz is damaged .*resumes from the one before"):
        checkpoint.restore(None, path)
    assert not ran.exists()


@pytest.mark.parametrize("notes", ['{"epoch"', "[]", "{}"])
def test_notes_that_do_not_say_the_epoch_are_damaged(notes, tmp_path):
    np.savez(tmp_path / "epoch-0001.npz", notes=np.array(notes))
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.restore(None, tmp_path / "epoch-0001.npz")


def test_checkpoints_are_listed_by_epoch(tmp_path):
    for name in ("epoch-0010.npz", "epoch-0009.npz", "epoch-10000.npz", "epoch-x.npz", "epoch-0011.npz.tmp"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        "epoch-0009.npz", "epoch-0010.npz", "epoch-10000.npz"
    ]  # fmt: skip

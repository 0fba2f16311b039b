import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_the_dueling_example_moves_the_heads_apart(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_dueling.py", "2"])
    ran = runpy.run_path(str(ROOT / "examples" / "train_dueling.py"))
    history = ran["history"]
    assert history["determinant"][-1] < history["rival_determinant"][-1]
    assert "Recall@1" in capsys.readouterr().out

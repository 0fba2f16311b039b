"""Which trials a study consists of, and what their keys hold."""

import types

import pytest

from tf_detreg.experiments import runner


@pytest.mark.parametrize(
    ("kind", "stage", "seeds"),
    [
        ("choice", "validation", [7]),
        ("choice", "test", [0, 1]),
        ("ablation", "validation", [0, 1]),
        ("table", "test", [0, 1]),
    ],
)
def test_a_choice_alone_chooses_with_its_few_seeds(kind, stage, seeds, monkeypatch):
    monkeypatch.setattr(runner, "describe", lambda study, stage, recipe, split, seed: (recipe, split, seed))
    protocol = {"choice_seeds": [7], "seeds": [0, 1], "splits": [4, 5]}
    plan = types.SimpleNamespace(kind=kind, families={"a": ("r",), "b": ("s",)}, protocol=protocol)
    wanted = [(recipe, split, seed) for recipe in "rs" for split in (4, 5) for seed in seeds]
    assert runner.jobs_of(plan, stage) == wanted


def test_data_count_by_name_and_size_and_not_by_their_place(tmp_path):
    (tmp_path / "a.csv").write_text("12345")
    file = {"name": "csv", "path": str(tmp_path / "a.csv")}
    assert runner._by_name_and_size(file) == {"name": "csv", "path": ["a.csv", 5]}
    assert runner._by_name_and_size({"name": "folder", "path": str(tmp_path)}) == {
        "name": "folder",
        "path": tmp_path.name,
    }
    assert runner._by_name_and_size({"name": "digits"}) == {"name": "digits"}

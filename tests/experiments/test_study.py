"""Study files: defaults, grids, budgets, and errors that say what is wrong."""

import pathlib

import pytest

from tf_detreg.experiments import study, table

STUDIES = sorted((pathlib.Path(__file__).parents[2] / "studies").rglob("*.toml"))
BASE = {"head": {"name": "Linear", "dim": 8}}


def write(tmp_path, text):
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_grid_makes_every_combination_and_budget_draws_from_them():
    family = {"head": {"name": "RealNVP", "depth": 2}, "grid": {"head.penalty": [0.1, 0.2, 0.3], "epochs": [1, 2]}}
    recipes = list(study.candidates(BASE, family))
    assert [(r["head"]["penalty"], r["epochs"]) for r in recipes] == [
        (0.1, 1),
        (0.1, 2),
        (0.2, 1),
        (0.2, 2),
        (0.3, 1),
        (0.3, 2),
    ]
    assert all(r["head"]["name"] == "RealNVP" and r["head"]["depth"] == 2 for r in recipes)
    drawn = list(study.candidates(BASE, family, budget=4))
    assert len(drawn) == 4 and drawn == list(study.candidates(BASE, family, budget=4))
    assert all(r in recipes for r in drawn)


def test_candidates_leave_the_base_alone():
    base = {"head": {"name": "Linear", "dim": 8}}
    list(study.candidates(base, {"grid": {"head.dropout": [0.5]}}))
    assert base == {"head": {"name": "Linear", "dim": 8}}


def test_another_name_replaces_a_table_and_the_same_name_extends_it():
    base = {"loss": {"name": "ProxyAnchor", "alpha": 16.0}}
    assert study.merge(base, {"loss": {"name": "SoftTriple"}})["loss"] == {"name": "SoftTriple"}
    assert study.merge(base, {"loss": {"margin": 0.2}})["loss"]["alpha"] == 16.0
    backbone = {"backbone": {"name": "efficientnet_lite0", "weights": "imagenet"}}
    assert study.merge(backbone, {"backbone": {"name": "small_cnn"}})["backbone"] == {"name": "small_cnn"}
    assert study.merge(backbone, {"backbone": {"trainable": False}})["backbone"]["weights"] == "imagenet"


def test_another_head_keeps_the_width():
    base = {"head": {"name": "RealNVP", "dim": 32, "depth": 2}}
    for head in ({"name": "Linear"}, "Linear"):
        assert study.merge(base, {"head": head})["head"] == {"name": "Linear", "dim": 32}
    assert study.merge(base, {"head": {"name": "Linear", "dim": 4}})["head"]["dim"] == 4


def test_names_with_a_comma_change_together():
    family = {"grid": {"classes, images": [[0, 128], [64, 2]], "head.dropout": [0.0, 0.1]}}
    found = list(study.candidates(BASE, family))
    assert [(r["classes"], r["images"], r["head"]["dropout"]) for r in found] == [
        (0, 128, 0.0),
        (0, 128, 0.1),
        (64, 2, 0.0),
        (64, 2, 0.1),
    ]


def test_hash_ignores_the_order_of_keys_and_sees_every_value():
    assert study.digest({"a": 1, "b": {"c": 2, "d": 3}}) == study.digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert study.digest({"a": 1}) != study.digest({"a": 2})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not valid TOML"),
        ("colour = 1\n[families.a]", "colour"),
        ('kind = "guess"\n[families.a]', "guess"),
        ("[protocol]\nseed = [1]\n[families.a]", "seed"),
        ("[run]\ndepth = 1\n[families.a]", "depth"),
        ("[recipe]\ndim = 1\n[families.a]", r"version 0\.1.*docs/studies\.md"),
        ("[families.a]\nhaed = {}", "haed"),
        ("title = 'x'", "families"),
        ('[protocol]\nbaselines = ["b"]\n[families.a]', "'b'"),
    ],
)
def test_faulty_files_are_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        study.read(write(tmp_path, text))


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
        study.read("nowhere.toml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
@pytest.mark.parametrize("smoke", [False, True])
def test_the_studies_of_the_repository_are_readable(path, smoke):
    found = study.read(path, smoke)
    assert found.question and found.title and found.families
    assert {entry["candidate"] for entry in found.papers} <= set(table.labels(found)) or smoke
    assert found.name.endswith("-smoke") == smoke
    if found.kind == "choice":
        counts = {len(recipes) for recipes in found.families.values()}
        assert len(counts) == 1, f"families are tuned with different budgets: {counts}"
        assert found.baselines


CURVE = """
[run]
data = "digits"
epochs = 3
[protocol]
test = 0.4
retrain = false
[curve]
"train_classes, epochs" = [[2, 9], [4, 5]]
[families.linear]
head = "Linear"
"""


def test_a_curve_is_a_study_at_each_value_of_its_axis(tmp_path):
    found = study.read(write(tmp_path, CURVE))
    assert found.axis == "train_classes" and list(found.points) == [2, 4]
    for value, epochs in ((2, 9), (4, 5)):
        point = found.points[value]
        assert point.name == f"{found.name}-{value}" and not point.points
        assert point.protocol["train_classes"] == value and not point.protocol["retrain"]
        assert [recipe["epochs"] for recipe in point.families["linear"]] == [epochs]
    assert found.families == found.points[2].families


@pytest.mark.parametrize(
    "curve", ["", '"train_classes" = []', "train_classes = 3", "train_classes = [2]\nimages_per_class = [2]"]
)
def test_a_curve_has_one_axis_with_values(tmp_path, curve):
    text = CURVE.replace('"train_classes, epochs" = [[2, 9], [4, 5]]', curve)
    path = write(tmp_path, text)
    if not curve:
        assert not study.read(path).points
        return
    with pytest.raises(ValueError, match=r"`curve` must have one entry.*received"):
        study.read(path)

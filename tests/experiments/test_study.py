"""Study files: defaults, grids, budgets, and errors that say what is wrong."""

import pathlib

import pytest

from tf_detreg.experiments import study

STUDIES = sorted((pathlib.Path(__file__).parents[2] / "studies").glob("*.toml"))


def write(tmp_path, text):
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_grid_makes_every_combination_and_budget_draws_from_them():
    family = {"head": {"kind": "RealNVP", "depth": 2}, "grid": {"head.penalty": [0.1, 0.2, 0.3], "epochs": [1, 2]}}
    recipes = list(study.candidates(study.RECIPE, family))
    assert [(r["head"]["penalty"], r["epochs"]) for r in recipes] == [
        (0.1, 1),
        (0.1, 2),
        (0.2, 1),
        (0.2, 2),
        (0.3, 1),
        (0.3, 2),
    ]
    assert all(r["head"]["kind"] == "RealNVP" and r["head"]["depth"] == 2 for r in recipes)
    drawn = list(study.candidates(study.RECIPE, family, budget=4))
    assert len(drawn) == 4 and drawn == list(study.candidates(study.RECIPE, family, budget=4))
    assert all(r in recipes for r in drawn)


def test_candidates_leave_the_base_alone():
    base = {**study.RECIPE, "head": {"kind": "Linear"}}
    list(study.candidates(base, {"grid": {"head.dropout": [0.5]}}))
    assert base["head"] == {"kind": "Linear"}


def test_another_kind_replaces_a_table_and_the_same_kind_extends_it():
    base = {"loss": {"kind": "ProxyAnchor", "alpha": 16.0}}
    assert study.merge(base, {"loss": {"kind": "SoftTriple"}})["loss"] == {"kind": "SoftTriple"}
    assert study.merge(base, {"loss": {"margin": 0.2}})["loss"]["alpha"] == 16.0
    backbone = {"backbone": {"name": "efficientnet_lite0", "weights": "imagenet"}}
    assert study.merge(backbone, {"backbone": {"name": "small_cnn"}})["backbone"] == {"name": "small_cnn"}
    assert study.merge(backbone, {"backbone": {"trainable": False}})["backbone"]["weights"] == "imagenet"


def test_hash_ignores_the_order_of_keys_and_sees_every_value():
    assert study.recipe_hash({"a": 1, "b": {"c": 2, "d": 3}}) == study.recipe_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert study.recipe_hash({"a": 1}) != study.recipe_hash({"a": 2})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not valid TOML"),
        ("colour = 1\n[families.a]", "colour"),
        ('kind = "guess"\n[families.a]', "guess"),
        ("[protocol]\nseed = [1]\n[families.a]", "seed"),
        ("[recipe]\ndepth = 1\n[families.a]", "depth"),
        ("[families.a]\nhaed = {}", "haed"),
        ("title = 'x'", "families"),
        ('[protocol]\nbaselines = ["b"]\n[families.a]', "'b'"),
    ],
)
def test_faulty_files_are_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        study.read(write(tmp_path, text))


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"nowhere\.toml"):
        study.read("nowhere.toml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
@pytest.mark.parametrize("smoke", [False, True])
def test_the_studies_of_the_repository_are_readable(path, smoke):
    found = study.read(path, smoke)
    assert found.question and found.title and found.families
    assert found.name.endswith("-smoke") == smoke
    if found.kind == "choice":
        counts = {len(recipes) for recipes in found.families.values()}
        assert len(counts) == 1, f"families are tuned with different budgets: {counts}"
        assert found.baselines

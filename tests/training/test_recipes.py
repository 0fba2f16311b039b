import pathlib

import keras
import pytest

from tf_detreg import datasets, recipes
from tf_detreg.training import RunConfig, assembly


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_names_its_source_and_parts_that_exist(name):
    recipe = recipes.describe(name)
    assert recipe.title and len(recipe.source) > 5
    config = recipe.config
    rooms = assembly.parts(config)
    assert {"head", "loss"} <= rooms.keys()
    assert all(isinstance(kind, type) for kind in rooms.values())
    assert config.data["name"] in datasets.LOADERS or name.startswith("photos")
    assert assembly.augmentation(config) is None or isinstance(assembly.augmentation(config), keras.Sequential)
    assert assembly.build_optimizer(config, steps=10).optimizers


# What the sources that the recipes name say, read there once more: the commands and defaults of the authors' code.
SOURCES = {
    "cub-proxy-anchor": {
        "batch": 120,
        "epochs": 60,
        "backbone_delay_epochs": 5,
        "decay_every_epochs": 5,
        "decay_factor": 0.5,
    },
    "cars-proxy-anchor": {"batch": 120, "epochs": 60, "backbone_delay_epochs": 5, "decay_every_epochs": 10},
    "sop-proxy-anchor": {"batch": 180, "head_rate": 6e-4, "decay_every_epochs": 20, "decay_factor": 0.25},
    "in-shop-proxy-anchor": {"batch": 180, "head_rate": 6e-4, "decay_every_epochs": 20, "decay_factor": 0.25},
    "cub-direction-triplet": {"batch": 128, "images": 16, "patience": 25, "margin": 0.278, "direction": 0.492},
    "cub-direction-proxy-nca": {"batch": 144, "images": 12, "patience": 10, "direction": 0.3, "proxy_factor": 1},
    "cub-direction-multi-similarity": {"batch": 80, "images": 5, "patience": 20, "base": 0.6, "direction": 0.28},
    "cub-language-multi-similarity": {"batch": 90, "images": 2, "epochs": 200, "beta": 40.0, "head_rate": 1e-5},
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_has_its_sources_values(name):
    config = recipes.load(name)
    values = {**vars(config), **config.loss, **config.optimizer, "batch": config.classes * config.images}
    assert {key: values[key] for key in SOURCES[name]} == SOURCES[name]


def test_a_folder_takes_the_place_of_the_data():
    assert recipes.load("cub-proxy-anchor-detreg", data="birds").data == {"name": "cub", "path": "birds"}
    assert recipes.load("photos", data="my photos").data == {"name": "my photos"}
    assert recipes.load("photos", data="cub:birds").data == {"name": "cub", "path": "birds"}
    assert recipes.load("cub-proxy-anchor", data="tfds:cars196").data == {"name": "tfds", "dataset": "cars196"}
    assert recipes.load("photos", data=r"C:\photos").data == {"name": r"C:\photos"}


def test_an_unknown_recipe_is_told_with_a_near_one():
    with pytest.raises(ValueError, match="Did you mean 'cub-proxy-anchor'"):
        recipes.load("cub-proxyanchor")


def test_a_backbone_from_nothing_learns_faster_than_one_that_is_tuned_and_with_clipped_gradients():
    def settings(**options):
        built = assembly.build_optimizer(RunConfig(**options), steps=10)
        rates = {one.name: float(one.learning_rate) for one in built.optimizers}
        return pytest.approx(rates["backbone"]), built.group_clipnorm

    assert settings() == (1e-2, 1.0)
    assert settings(optimizer={"backbone_rate": 3e-3, "clipnorm": None}) == (3e-3, None)
    assert settings(backbone="efficientnet_lite0") == (1e-4, None)
    # A regularizer that one sample can make steep is clipped too, unless the run says otherwise.
    steep = {"backbone": "efficientnet_lite0", "regularizers": ["Uniformity", {"name": "NonIsotropy", "dim": 8}]}
    assert settings(**steep) == (1e-4, 1.0)
    assert settings(**steep, optimizer={"clipnorm": 0}) == (1e-4, None)
    assert settings(**{**steep, "regularizers": ["Uniformity"]}) == (1e-4, None)


@pytest.mark.parametrize("name", recipes.names())
def test_a_copy_of_a_recipe_is_a_configuration(name, tmp_path):
    text = (pathlib.Path(recipes.__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert RunConfig.load(tmp_path / "mine.toml") == recipes.load(name)


def test_an_entry_behind_the_last_table_of_a_copy_is_not_passed_over(tmp_path):
    copy = tmp_path / "mine.toml"
    copy.write_text(
        (pathlib.Path(recipes.__file__).parent / "photos.toml").read_text("utf-8") + "epochs = 60\n", "utf-8"
    )
    with pytest.raises(ValueError, match=r"mine\.toml: `recipe` must be a table of title, .* alone; received epochs\."):
        RunConfig.load(copy)
    copy.write_text('recipe = "photos"\nepochs = 60\n', "utf-8")
    with pytest.raises(ValueError, match=r"`recipe` must be a table .*; received 'photos'"):
        RunConfig.load(copy)


def test_recipes_for_photos_train_the_head_first_and_state_their_cost():
    for name in ("photos", "photos-vit"):
        options = recipes.load(name).optimizer
        assert options["backbone_delay_epochs"] and options["warmup_epochs"] and options["clipnorm"]
    assert recipes.load("photos-linear").features
    assert all(recipes.describe(name).cost for name in recipes.names() if name.startswith("photos"))


def test_fewer_epochs_leave_some_to_learn_in():
    """`--epochs 1` shortens what a recipe of thirty epochs begins with."""
    from tf_detreg.cli.train import _shortened

    config = recipes.load("photos")
    assert _shortened(config.optimizer, 30) == config.optimizer
    for epochs in (1, 2):
        short = config.replace(epochs=epochs, optimizer=_shortened(config.optimizer, epochs))
        for steps in (1, 2, 3, 7):
            assert assembly.build_optimizer(short, steps).optimizers


def test_a_benchmark_may_lie_in_a_folder_that_is_called_as_a_loader():
    cars = recipes.describe("cars-proxy-anchor").config
    assert recipes.with_data(cars, "folder").data == {"name": "cars", "path": "folder"}
    assert recipes.with_data(cars, "folder:there").data == {"name": "folder", "path": "there"}
    assert recipes.with_data(recipes.describe("glyphs").config, "digits").data == {"name": "digits"}

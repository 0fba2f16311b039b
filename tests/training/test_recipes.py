import keras
import pytest

from tf_detreg import recipes
from tf_detreg.training import assembly


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_names_its_source_and_parts_that_exist(name):
    recipe = recipes.describe(name)
    assert recipe.title and len(recipe.source) > 5
    config = recipe.config
    rooms = assembly.parts(config)
    assert {"head", "loss"} <= rooms.keys()
    assert all(isinstance(kind, type) for kind in rooms.values())
    assert config.data["name"] in assembly.LOADERS or name == "photos"
    assert assembly.augmentation(config) is None or isinstance(assembly.augmentation(config), keras.Sequential)
    assert assembly.build_optimizer(config, steps=10).optimizers


def test_a_folder_takes_the_place_of_the_data():
    assert recipes.load("cub-proxy-anchor-detreg", data="birds").data == {"name": "cub", "path": "birds"}
    assert recipes.load("photos", data="my photos").data == {"name": "my photos"}
    assert recipes.load("photos", data="cub:birds").data == {"name": "cub", "path": "birds"}
    assert recipes.load("cub-proxy-anchor", data="tfds:cars196").data == {"name": "tfds", "dataset": "cars196"}
    assert recipes.load("photos", data=r"C:\photos").data == {"name": r"C:\photos"}


def test_an_unknown_recipe_is_told_with_a_near_one():
    with pytest.raises(ValueError, match="Did you mean 'cub-proxy-anchor'"):
        recipes.load("cub-proxyanchor")

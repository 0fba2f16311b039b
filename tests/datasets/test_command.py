"""Every loader's test tree through the command: loaded, trained for an epoch, evaluated."""

import json

import pytest
from typer.testing import CliRunner

from tests.datasets import trees
from tests.datasets.test_tfds import source  # noqa: F401 - a fixture
from tf_detreg import cli

# A run here takes a handful of steps: tracing them would take most of the time.
pytestmark = pytest.mark.usefixtures("eager")

SMALL = """
image_size = 8
classes = 2
images = 2
epochs = 1
loss = "SupCon"
features = false

[backbone]
name = "small_cnn"
width = 4
blocks = 1

[head]
name = "Linear"
dim = 4

[data]
"""


def train(tmp_path, data, *arguments):
    """Trains from a recipe file; what its [data] says is the one way past the official counts."""
    (tmp_path / "tree.toml").write_text(SMALL + data)
    command = ["train", *map(str, arguments), "--recipe", str(tmp_path / "tree.toml"), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "R@1" in result.output
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 2
    return json.loads((tmp_path / "run" / "config.json").read_text())


@pytest.mark.parametrize("layout", ["cub", "cars", "cars_parted", "sop", "in_shop"])
def test_benchmark(layout, tmp_path):
    root = getattr(trees, layout)(tmp_path / "tree")
    loader = layout.removesuffix("_parted")
    record = train(tmp_path, f'name = "{loader}"\ncheck = false\nvalidation = 0.34\npath = "elsewhere"', root)
    assert record["config"]["data"] == {"name": loader, "check": False, "validation": 0.34, "path": str(root)}
    assert all(part["images"] for part in record["data"].values())
    assert ("gallery" in record["data"]) == (loader == "in_shop")


def test_a_gallery_is_what_evaluate_and_its_page_search(tmp_path):
    root = trees.in_shop(tmp_path / "tree", each=1)  # one query a garment, which among the queries finds nothing
    train(tmp_path, 'name = "in_shop"\ncheck = false\nvalidation = 0.34\npath = "elsewhere"', root)
    result = CliRunner().invoke(cli.app, ["evaluate", str(tmp_path / "run")], catch_exceptions=False)
    assert "6 queries of 6 classes, 6 items, query-gallery" in " ".join(result.output.split())
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "each is searched for in a gallery of 6." in page and "queries and gallery put together" in page
    # Queries and gallery show the same grey: each finds its copy first.
    assert "100.0 % find their own class first" in page


@pytest.mark.parametrize("name", ["caltech_birds2011", "cars196", "stanford_online_products"])
def test_data_set_of_tensorflow_datasets(name, source, tmp_path):  # noqa: F811 - the fixture
    place = source(name, (0, 1, 2, 97, 11318 if "products" in name else 150, 151))
    record = train(tmp_path, f'name = "tfds"\ncheck = false\ndirectory = "{place}"', f"tfds:{name}")
    assert record["config"]["data"]["dataset"] == name
    assert all(part["images"] for part in record["data"].values())


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_own_pictures(kind, tmp_path):
    rows = [(f"tree/{c}/{i}.png", f"class {c}") for c in range(8) for i in range(3)]
    for shade, (file, _) in enumerate(rows):
        trees.picture(tmp_path / file, shade)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    record = train(tmp_path, 'name = "glyphs"', tmp_path / ("tree" if kind == "folder" else "list.csv"))
    assert sum(part["images"] for part in record["data"].values()) == 24


def test_features_drop_what_a_recipe_does_to_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path / "cache"))
    more = 'name = "cub"\ncheck = false\nvalidation = 0.34\n\n'
    more += '[crop]\nscale = [0.5, 1.0]\n\n[[augment]]\nname = "RandomFlip"'
    config = train(tmp_path, more, trees.cub(tmp_path / "tree"), "--features")["config"]
    assert config["features"] and config["crop"] is None and config["augment"] == []

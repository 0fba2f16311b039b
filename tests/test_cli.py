"""The command, from a folder of photos to a search, and what it says when the input is bad."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from tf_detreg import cli

SMALL = ["--image-size", "16", "--epochs", "1", "--classes", "3", "--images", "2", "--backbone", "small_cnn"]
SMALL += ["--dim", "8", "--loss", "SupCon"]


def command(*arguments) -> str:
    """Runs the command in this process; its errors come out as they are."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten classes, each a colour, as JPEGs and PNGs of different sizes; one file is no image at all."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for label in range(10):
        (folder / f"Klasse {label} é").mkdir()
        colour = rng.integers(0, 256, 3)
        for number in range(4):
            height, width = rng.integers(20, 60, 2)
            pixels = np.clip(colour + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)
            ending = "png" if number == 3 else "jpg"
            Image.fromarray(pixels).save(folder / f"Klasse {label} é" / f"{number}.{ending}")
    (folder / "Klasse 0 é" / "broken.jpg").write_text("this is no JPEG")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "photos"
    assert "R@1" in command("train", photos, "--run", directory, *SMALL)
    return directory


def test_training_on_a_folder_leaves_a_whole_run(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "embedder.keras", "history.csv", "evaluation.json"} <= names
    assert json.loads((run / "config.json").read_text())["config"]["loss"]["name"] == "SupCon"


def test_evaluate_prints_recall_and_writes_the_report(run):
    assert "R@1" in command("evaluate", run)
    assert "Mistakes" in (run / "report.html").read_text(encoding="utf-8")


def test_analyze_measures_seen_and_unseen_classes(run):
    assert "unseen" in command("analyze", run, "--samples", 4)
    assert {"head", "backbone", "embedder"} <= set(json.loads((run / "lipschitz.json").read_text()))
    assert Image.open(run / "lipschitz.png").size[0] > 400


def test_export_writes_what_loads_and_what_it_checked(run, tmp_path):
    output = command("export", run, "--to", tmp_path, "--format", "saved_model", "--format", "float32")
    served = tf.saved_model.load(tmp_path / "photos" / "1").signatures["serving_default"]
    assert served(images=tf.zeros((2, 16, 16, 3)))["embeddings"].shape == (2, 8)
    (lite,) = (tmp_path / "photos").glob("*.tflite")
    assert lite.name in output.replace("\n", "")
    card = (tmp_path / "photos" / "README.md").read_text(encoding="utf-8")
    assert card == (tmp_path / "photos" / "1" / "README.md").read_text(encoding="utf-8")
    # The test before this one measured the run's smoothness.
    for text in ("| R@1 |", "leave-one-out", "| spectral norm |", "images of 5 classes for training", '"SupCon"'):
        assert text in card


def test_an_index_is_built_and_searched(run, photos, tmp_path):
    # 40 images and one file that is none.
    assert "40 images indexed" in command("index", run, photos, "--to", tmp_path / "i")
    query = photos / "Klasse 5 é" / "2.jpg"
    output = command("search", tmp_path / "i", query, "-k", 2, "--picture", tmp_path / "n.png")
    assert output.startswith("2.jpg: 2.jpg 1.000")
    assert (tmp_path / "n.png").is_file()


def test_embed_leaves_out_what_is_no_image(run, photos, tmp_path):
    output = command("embed", run, photos / "Klasse 0 é", "--out", tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        assert file["embeddings"].shape == (4, 8)
        assert not [path for path in file["paths"] if "broken" in path]
    assert "4 of 5 images" in output


def test_search_finds_the_query_itself_first_and_draws(run, photos, tmp_path):
    output = command("search", run, photos / "Klasse 3 é" / "1.jpg", "-k", 3, "--picture", tmp_path / "n.png")
    assert output.startswith("1.jpg: Klasse 3 é 1.000")
    assert Image.open(tmp_path / "n.png").size[0] > 4 * 128


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "no-such-place"], "Give a folder"),
        (["evaluate", "."], "not the directory of a run"),
        (["train", "digits", "--loss", "ProxyAncor"], "ProxyAnchor"),
        (["train", "digits", "--epochs", "0"], "epochs"),
    ],
)
def test_errors_say_what_to_do(arguments, hint, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        "sys.argv", ["tf-detreg", *arguments, *(["--run", str(tmp_path / "r")] * ("train" in arguments))]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert hint in capsys.readouterr().err


def test_a_run_in_the_way_is_not_overwritten(run, photos):
    with pytest.raises(ValueError, match="already holds a run"):
        command("train", photos, "--run", run, *SMALL)


def test_every_command_explains_itself():
    for name in [entry.callback.__name__ for entry in cli.app.registered_commands]:
        assert len(command(name.replace("_", "-"), "--help")) > 200

"""A run whose photos have moved goes on with the same photos elsewhere, and with no others."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.eager import eagerly
from tf_detreg.cli.app import app
from tf_detreg.searching import search_run
from tf_detreg.training import RunConfig, load_run, train
from tf_detreg.training.moved_data import moved


def config(data, **changes):
    return RunConfig.from_dict(
        {
            "data": {"name": str(data), "validation": 0.25, "test": 0.25},
            "image_size": 16,
            "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
            "head": {"name": "Linear", "dim": 4},
            "classes": 2,
            "images": 2,
            "epochs": 1,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The folder of a run, and of its photos, which are not any more where they were when it was trained."""
    folder = tmp_path_factory.mktemp("once")
    rng = np.random.default_rng(0)
    for number in range(8):
        (folder / "photos" / f"class {number}").mkdir(parents=True)
        for image in range(3):
            pixels = rng.integers(0, 60, (16, 16, 3)) + 20 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"photos/class {number}/{number}-{image}.png")
    with eagerly():
        train(config(folder / "photos"), folder / "run", verbose=0)
    (folder / "photos").rename(folder / "pictures")
    return folder


@pytest.fixture
def there(once, tmp_path, eager):
    """A run that was killed before its end, and where its photos are now."""
    shutil.copytree(once / "run", tmp_path / "run")
    shutil.copytree(once / "pictures", tmp_path / "disk" / "pictures")
    return load_run(tmp_path / "run"), tmp_path / "disk" / "pictures"


def test_every_command_takes_the_new_address(there):
    run, photos = there
    call = CliRunner().invoke
    lost = call(app, ["evaluate", str(run.directory)])
    assert lost.exit_code and "photos" in str(lost.exception)
    for command in (["evaluate"], ["analyze", "--samples", "2"], ["export", "--help"]):
        done = call(app, [command[0], str(run.directory), *command[1:], "--data", str(photos)])
        assert done.exit_code == 0, (command, done.output, done.exception)
    query = str(photos / "class 1" / "1-0.png")
    assert search_run(run.directory, [query], 1, str(photos)).found_names == [["class 1"]]
    refused = call(app, ["search", str(photos), query, "--data", str(photos)])
    assert "is no run" in str(refused.exception)
    # What only looks leaves the run's own entry as it is.
    assert load_run(run.directory).config == run.config


@pytest.mark.parametrize("option", [["DATA"], ["--data", "DATA"]])
def test_a_resumed_run_takes_and_keeps_it(there, option):
    run, photos = there
    (run.directory / "embedder.keras").unlink()
    arguments = [str(photos) if word == "DATA" else word for word in option]
    done = CliRunner().invoke(app, ["train", *arguments, "--run", str(run.directory), "--resume"])
    assert done.exit_code == 0, (done.output, done.exception)
    again = load_run(run.directory)
    assert again.finished and again.config.data == {"name": str(photos), "validation": 0.25, "test": 0.25}
    assert len(again.splits().test) == 6
    record = json.loads((run.directory / "config.json").read_text())
    assert record["versions"] and record["data"]["train"]["images"] == 12


def test_other_photos_are_refused_with_what_differs(there):
    run, photos = there
    (photos / "class 0" / "0-0.png").unlink()
    before = (run.directory / "config.json").read_bytes()
    for command in (["evaluate", str(run.directory)], ["train", "--resume", "--run", str(run.directory)]):
        done = CliRunner().invoke(app, [*command, "--data", str(photos)])
        assert done.exit_code and "in the run" in str(done.exception) and ".images: " in str(done.exception)
    with pytest.raises(ValueError, match=r"holds other images than those of the run .*\n  data: \w+\.images: "):
        load_run(run.directory, str(photos)).splits()
    assert (run.directory / "config.json").read_bytes() == before
    both = CliRunner().invoke(app, ["train", "a", "--data", "b", "--resume", "--run", str(run.directory)])
    assert "give one of them" in str(both.exception)


def test_another_configuration_is_refused_as_before(there):
    run, photos = there
    with pytest.raises(ValueError, match="epochs: 1 in the run, 2 now"):
        train(config(photos, epochs=2), run.directory, resume=True, verbose=0)


@pytest.mark.parametrize(
    ("old", "address", "new"),
    [
        ({"name": "photos", "seed": 3}, "list.csv", {"name": "list.csv", "seed": 3}),
        ({"name": "csv", "path": "a.csv", "max_missing": 0.1}, "b.csv", {"path": "b.csv", "max_missing": 0.1}),
        ({"name": "photos", "seed": 3}, "folder:b", {"name": "folder", "path": "b", "seed": 3}),
        ({"name": "cub", "path": "CUB", "check": False}, "cub:b", {"name": "cub", "path": "b", "check": False}),
        ({"name": "tfds", "dataset": "cars196"}, "/tfds", {"dataset": "cars196", "directory": "/tfds"}),
        ({"name": "digits"}, "digits", {"name": "digits"}),
    ],
)
def test_what_is_made_of_the_images_stays(old, address, new):
    assert moved(RunConfig(data=old), address).data.items() >= new.items()

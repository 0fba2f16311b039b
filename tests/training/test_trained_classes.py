"""Where test classes were trained on, every statement says so, and the two parts are measured apart."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.eager import eagerly
from tf_detreg import datasets
from tf_detreg.analysis import run_page
from tf_detreg.cli.app import app
from tf_detreg.cli.train import _print_evaluation
from tf_detreg.export.cards import run_results
from tf_detreg.retrieval.trained_classes import by_training, is_trained, sentence
from tf_detreg.training import RunConfig, load_run, train

TRAINED, NEW = ("ant", "bee", "cat"), ("dog", "eel")


def config(data):
    return RunConfig.from_dict(
        {
            "data": str(data),
            "image_size": 16,
            "backbone": {"name": "small_cnn", "width": 4, "blocks": 2},
            "head": {"name": "Linear", "dim": 4},
            "classes": 2,
            "images": 2,
            "epochs": 1,
        }
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """`train/` and `test/` as classification data have them; two test classes are new."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, names in (("train", TRAINED), ("val", ("fly", "gnu")), ("test", TRAINED + NEW)):
        for number, name in enumerate(names):
            (root / part / name).mkdir(parents=True)
            for image in range(3):
                pixels = rng.integers(0, 60, (16, 16, 3)) + 40 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    with eagerly():
        return train(config(photos), tmp_path_factory.mktemp("runs") / "one", verbose=0)


def test_the_json_counts_them_and_holds_both_parts(run):
    found = json.loads((run.directory / "evaluation.json").read_text())
    assert found["test"]["trained_classes"] == 3 and found["test"]["classes"] == 5
    assert found["test"]["seen"]["classes"] == 3 and found["test"]["seen"]["gallery"] == 9
    assert found["test"]["unseen"]["classes"] == 2 and found["test"]["unseen"]["gallery"] == 6
    assert found["validation"]["trained_classes"] == 0 and "seen" not in found["validation"]


def test_the_card_and_the_table_say_so(run, capsys):
    card = run_results(run.directory)["evaluation"]
    assert "| test classes | test classes trained on | test classes not trained on | validation classes |" in card
    assert "3 of the 5 classes were trained on." in card and "None of the 2 classes was trained on." in card
    _print_evaluation(run)
    shown = capsys.readouterr().out
    assert "held-out images" in shown and "held back from training" not in shown
    assert "Test: 3 of the 5 classes were trained on." in shown


def test_the_commands_and_the_page_say_so(run):
    done = CliRunner().invoke(app, ["evaluate", str(run.directory)])
    assert done.exit_code == 0, done.output
    assert "3 of the 5 classes were trained on. Classes trained on (3) by themselves: R@1" in done.stdout
    assert "Classes not trained on (2) by themselves: R@1" in done.stdout
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    assert "3 of the 5 classes were trained on." in page and "<td>Classes not trained on</td>" in page
    assert "held back" not in page


@pytest.mark.usefixtures("eager")
def test_a_csv_with_such_a_split_says_so_too(photos, tmp_path):
    rows = [
        f"{path},{path.parent.name},{path.parent.parent.name}"
        for path in sorted(photos.rglob("*.png"))
        if path.parent.name in TRAINED
    ]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    found = train(config(tmp_path / "list.csv"), tmp_path / "run", verbose=0).evaluation["test"]
    # All of them: there are no two parts, and the whole is the part that was seen.
    assert found["trained_classes"] == found["classes"] == 3 and not {"seen", "unseen"} & found.keys()


@pytest.mark.usefixtures("eager")
def test_classes_held_back_are_called_so(run, capsys):
    splits = load_run(run.directory).splits()
    apart = splits._replace(test=splits.test.select_classes([3, 4]))
    other = train(run.config, run.directory.parent / "apart", splits=apart, verbose=0)
    assert other.evaluation["test"]["trained_classes"] == 0
    _print_evaluation(other)
    assert "Retrieval on classes held back from training" in capsys.readouterr().out


def test_a_run_of_an_older_version_makes_no_claim(run, capsys):
    old = {
        name: {key: value for key, value in report.items() if key not in ("trained_classes", "seen", "unseen")}
        for name, report in run.evaluation.items()
    }

    @dataclasses.dataclass
    class Old:
        evaluation: dict
        config: RunConfig

    _print_evaluation(Old(old, run.config))
    assert "held back" not in capsys.readouterr().out


def test_each_part_is_searched_for_in_itself_alone():
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(12, 4)), np.repeat([0, 1, 2, 3], 3)
    trained = is_trained(["a", "b", "c", "d"], ["b", "d", "z"])
    found = by_training(rows, labels, trained, k=(1, 8), resamples=0)
    from tf_detreg.retrieval import evaluate

    alone = evaluate(rows[trained[labels]], labels[trained[labels]], k=1, resamples=0)
    assert found.reports["seen"].recall == alone.recall  # rank 8 is beyond its five items
    across = by_training(rows, labels, trained, gallery=rows[::-1], gallery_labels=labels[::-1], k=(1,), resamples=0)
    assert across.reports["unseen"].gallery == 6
    lone = by_training(rows[:4], labels[:4], trained, k=(1,), resamples=0)
    assert (lone.trained, lone.classes, list(lone.reports)) == (1, 2, ["unseen"])
    assert sentence(1, 2) == "1 of the 2 classes was trained on."


def test_the_page_shows_parts_that_lack_a_rank(tmp_path):
    images = datasets.ImageSet(np.repeat([0, 1, 2], [2, 4, 4]), list("abc"), np.zeros((10, 4, 4), np.uint8))
    rows = np.random.default_rng(0).normal(size=(10, 3))
    reports = run_page.compare({"after": [rows]}, [images.labels], k=(1, 4))
    page = run_page.write(tmp_path / "r.html", "A", [images], [rows], reports, [], {}, trained_on=["a"])
    assert "<td>–</td>" in page.read_text(encoding="utf-8")

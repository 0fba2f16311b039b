"""What the figures of studies and of compared backbones show, compared with what was looked at once."""

import dataclasses
import types

import pytest

from tests.figures import check, figures_of
from tf_detreg.experiments import candidates, plots
from tf_detreg.experiments.statistics import Interval


def interval(mean, count=3):
    return Interval(mean, 0.5, count, (mean - 1, mean + 1), (mean - 0.5, mean + 0.25))


def entry(name, mean, *, baseline=False, difference=None, count=3):
    metrics = {"recall@1": interval(mean, count), "seconds": interval(10 * mean, count)}
    return {"name": name, "is_baseline": baseline, "difference": difference, "metrics": metrics}


STUDY = types.SimpleNamespace(title="Margins", protocol={"metric": "recall@1"}, axis="train_classes")
COMPARED = [
    entry("linear", 50.0, baseline=True),
    entry("flow", 53.0, difference=interval(3.0)),
    entry("once", 49.0, difference=interval(-1.0, 1)),
    entry("lost", 40.0),
]
ALONE = [entry("one", 50.0), entry("two", 60.0, count=1)]


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("differences", lambda: plots.differences(STUDY, COMPARED)),
        ("means", lambda: plots.differences(STUDY, ALONE)),
        ("overview", lambda: plots.overview([(STUDY, COMPARED), (STUDY, COMPARED[:2])])),
        ("curve", lambda: plots.curve(STUDY, {40: {"a": ALONE[0], "b": ALONE[1]}, 160: {"a": ALONE[1]}})),
        ("cost", lambda: plots.cost(STUDY, ALONE)),
    ],
)
def test_pictures_of_a_study(name, drawn):
    with figures_of() as found:
        assert drawn().count("<svg") == 1
    ((figure, options),) = found
    check(name, figure, options)


def measured(recall):
    return candidates.Measured(recall, (recall - 0.05, recall + 0.1), recall / 2, (recall / 4, recall))


SMALL = candidates.Candidate("hub:FOLDER/small", None, (96, 96), 8, 2_000_000, 2.04, 50.0, measured(0.5))
LARGE = candidates.Candidate("large", "imagenet", (32, 64), 9, 20_000_000, 20.0, 1250.0, measured(0.75), measured(0.94))


def test_a_picture_of_compared_backbones(tmp_path):
    frozen = candidates.Comparison("DATA", 40, 4, 0, (SMALL,), {})
    with figures_of() as found:
        frozen.save(tmp_path)
        dataclasses.replace(frozen, epochs=3, candidates=(LARGE, SMALL)).save(tmp_path)
    for name, (figure, options) in zip(("backbones", "backbones_linear"), found, strict=True):
        check(name, figure, options)


def test_the_table_of_compared_backbones():
    both = candidates.Comparison("MY DATA", 40, 4, 3, (LARGE, SMALL), {"x": "why"})
    first, second = both.rows()
    assert list(first) == [
        "backbone",
        "px",
        "R@1",
        "MAP@R",
        "linear R@1",
        "linear MAP@R",
        "images/s",
        "M params",
        "int8 MB",
    ]
    assert list(second) == [name for name in first if not name.startswith("linear")]
    assert (first["images/s"], first["M params"], first["int8 MB"]) == ("1,250.0", "20.00", "20.0")
    assert (second["backbone"], second["px"], second["int8 MB"]) == ("hub:FOLDER/small", "96", "2.0")
    assert both.cheapest() == LARGE
    assert both.train_line(LARGE) == "tf-detreg train 'MY DATA' --backbone large --weights imagenet"
    assert both.train_line(SMALL) == "tf-detreg train 'MY DATA' --backbone hub:FOLDER/small --image-size 96"
    assert both.to_dict()["failures"] == {"x": "why"}

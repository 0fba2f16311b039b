"""The README's plot of results shows what the tables of the studies hold, and nothing else."""

import csv
import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("results_plot", ROOT / "docs" / "results_plot.py")
results_plot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_plot)


@pytest.fixture
def results(tmp_path):
    with open(tmp_path / "emoji-finetune.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["family", "recipe", "metric.recall@1"])
        table.writeheader()
        for family, rate, recall in (
            ("linear, backbone frozen", None, 40.0),
            ("linear, backbone frozen", None, 50.0),
            ("linear", 1e-4, 60.0),
            ("linear", 3e-4, 73.04),
            ("something else", 3e-4, 99.0),
        ):
            recipe = json.dumps({"rates": {"backbone_rate": rate}})
            table.writerow({"family": family, "recipe": recipe, "metric.recall@1": recall})
    return tmp_path


def test_bars_are_means_over_the_rows_of_a_family_at_its_rate(results):
    rows = results_plot.drawn(results)
    assert list(rows) == ["emoji-finetune"]  # the other study has no table there
    assert [(bar.rate, values) for bar, values in rows["emoji-finetune"]] == [
        (None, [40.0, 50.0]),
        (1e-4, [60.0]),
        (3e-4, [73.04]),
    ]
    results_plot.draw(results, results / "plot.svg")
    text = (results / "plot.svg").read_text(encoding="utf-8")
    assert re.findall(r">(\d+\.\d)<", text) == ["45.0", "60.0", "73.0"]


def test_the_picture_is_that_of_the_tables(tmp_path):
    results_plot.draw(picture=tmp_path / "plot.svg")
    numbers = re.compile(r">(\d+\.\d)<")
    kept = results_plot.PICTURE.read_text(encoding="utf-8")
    assert numbers.findall(kept) == numbers.findall((tmp_path / "plot.svg").read_text(encoding="utf-8"))
    assert len(numbers.findall(kept)) >= 6 and len(kept) < 60_000

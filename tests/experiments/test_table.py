"""The tidy table of a study."""

import dataclasses
import json

from tf_detreg.experiments import table
from tf_detreg.experiments.statistics import Interval


def row(config, **changes):
    given = {"study": "s", "stage": "test", "family": "f", "recipe_hash": "h", "split": 0, "seed": 0}
    given |= {"config": config, "metrics": {"recall@1": 71.234567}, "versions": {"keras": "3"}}
    return {**given, "machine": "m", "finished": "now", **changes}


def test_a_recipe_is_written_alike_in_whatever_order_it_was_given(tmp_path):
    one = {"epochs": 3, "head": {"name": "Linear", "dim": 8}, "loss": {"name": "ProxyAnchor", "alpha": 16.0}}
    other = {name: dict(reversed(part.items())) if isinstance(part, dict) else part for name, part in one.items()}
    first, second = table.tidy([row(one), row(dict(reversed(other.items())))])
    assert first == second
    assert list(json.loads(first["recipe"])) == sorted(json.loads(first["recipe"]))
    assert first["metric.recall@1"] == 71.23457


def test_rows_are_sorted_by_what_they_are_of():
    keys = [
        ("a", "f", "h", 0, 1),
        ("a", "f", "h", 1, 0),
        ("a", "f", "i", 0, 0),
        ("a", "g", "a", 0, 0),
        ("b", "a", "a", 0, 0),
    ]
    names = ("stage", "family", "recipe_hash", "split", "seed")
    rows = table.tidy([row({"epochs": 1}, **dict(zip(names, key, strict=True))) for key in reversed(keys)])
    assert [tuple(line[name] for name in names) for line in rows] == keys


def test_an_interval_is_written_with_its_deviation_where_there_is_one():
    one = Interval(71.234, 0.5, 1, (70.0, 72.5), (69.0, 73.456))
    two = dataclasses.replace(one, count=2)
    assert (table.show(None), table.show(one), table.show(two)) == ("", "71.23", "71.23 ± 0.50")
    assert table.show(two, 1) == "71.2 ± 0.5"
    assert table.show_difference(None) == "baseline"
    assert table.show_difference(one) == "+71.23 (one pair)"
    assert table.show_difference(two) == "+71.23 [+70.00, +72.50] / [+69.00, +73.46]"


def test_metrics_that_a_trial_lacks_stay_empty(tmp_path):
    path = table.write(
        table.tidy([row({}, metrics={"a": 1.25}), row({}, seed=1, metrics={"b": 2.0})]), tmp_path / "t.csv"
    )
    first, second = table.read(path)
    assert (first["metric.a"], first["metric.b"], second["metric.b"]) == (1.25, "", 2.0)
    assert table.values([first, second], "a") == {(0, 0): 1.25}

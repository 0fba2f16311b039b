"""Tables of the page of a study."""

import dataclasses
import types

from tf_detreg.experiments import pages
from tf_detreg.experiments.statistics import Interval


def entry(name, **metrics):
    return {"name": name, "metrics": {key: Interval(v, 0.0, 2, (v, v), (v, v)) for key, v in metrics.items()}}


def test_smoothness_shows_what_any_candidate_has():
    assert pages._smoothness([entry("a"), entry("b")]) is None
    grid = pages._smoothness([entry("a", spectral=2.0, frobenius=0.5), entry("b", secant_within_unseen=0.25)])
    columns = grid.head[2:]
    assert set(columns) == {"spectral", "frobenius", "secant_within_unseen"}
    found = {row[0]: dict(zip(grid.head[1:], row[1:], strict=True)) for row in grid.rows}
    assert found["a"] == {
        "spectral / frobenius": "4.00",
        "spectral": "2.000",
        "frobenius": "0.500",
        "secant_within_unseen": "",
    }
    assert found["b"]["secant_within_unseen"] == "0.250" and found["b"]["spectral / frobenius"] == ""


def test_health_shows_what_any_candidate_has():
    assert pages._health([entry("a")]) is None
    grid = pages._health([entry("a"), entry("b", health_mean_cosine=0.5)])
    assert grid.head[1:] == ["mean cosine"] and [row[1] for row in grid.rows] == ["", "0.50 ± 0.00"]


def test_what_was_chosen_stands_in_the_order_of_the_splits():
    recipes = ({"head": {"name": "Linear", "dim": 4}}, {"head": {"name": "Linear", "dim": 8}})
    study = types.SimpleNamespace(families={"linear": recipes})
    rows = [{"family": "linear", "stage": "test", "split": split, "recipe": recipes[split]} for split in (1, 0)]
    rows.append({"family": "linear", "stage": "validation", "split": 0, "recipe": recipes[1]})
    ((family, count, text),) = pages._chosen(study, rows).rows
    assert (family, count) == ("linear", "2")
    assert text.index("0: ") < text.index("1: ") and "dim 4" in text.split(";")[0] and "dim 8" in text.split(";")[1]


@dataclasses.dataclass(frozen=True)
class Plan:
    kind: str
    families: dict
    protocol: dict


def test_the_first_stage_of_a_choice_is_an_ablation_on_validation_classes():
    plan = Plan("choice", {}, {})
    rows = [{"stage": stage} for stage in ("validation", "test", "validation")]
    study, kept = pages._as_ablation(plan, rows)
    assert study.kind == "ablation" and kept == [rows[0], rows[2]]

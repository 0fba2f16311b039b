"""What a study can turn on: labels, health columns, comparison within families, smoke versions."""

import pytest

from tf_detreg.experiments import pages, plots, runner, study, table

HEALTHY = {"mean_cosine": 0.1, "effective_rank": 9.0, "within_between_ratio": 0.5, "active_triplets": 0.2}
TEXT = """
title = "Margins"
question = "Which?"
[run]
data = "digits"
k = [1]
health = {health}
[protocol]
splits = [0, 1]
seeds = [0]
[families.triplet]
loss = {{ name = "TripletSemiHard" }}
grid = {{ "loss.margin" = [0.2, 0.1, 0.5] }}
[families.alone]
loss = {{ name = "FastAP" }}
"""


def margins(folder, health="false"):
    path = folder / "margins.toml"
    path.write_text(TEXT.format(health=health), encoding="utf-8")
    return study.read(path)


def rows_of(found, folder, health=False):
    """A made-up row for each trial: recall grows with the margin, and the last candidate collapses."""
    rows = []
    for job in runner.jobs_of(found, "validation"):
        margin = job["config"]["loss"].get("margin", 0.0)
        metrics = {"recall@1": 50 + 10 * margin + job["split"], "map@r": 1.0, "train_recall@1": 9.0, "seconds": 1.0}
        if health:
            when = {"health_first_warning": 2, "health_last_warning": 4} if margin == 0.5 else {}
            metrics |= {f"health_{name}": value for name, value in HEALTHY.items()}
            metrics |= {"health_warnings": 3 if when else 0} | when
        family = "triplet" if "margin" in job["config"]["loss"] else "alone"
        record = {**job, "family": family, "study": found.name, "metrics": metrics | {"parameters": 10}}
        rows.append({**record, "versions": {"keras": "3"}, "machine": "m", "finished": "now"})
    return table.read(table.write(table.tidy(rows), folder / "rows.csv"))


def test_without_baselines_candidates_are_compared_with_the_first_of_their_family(tmp_path):
    found = margins(tmp_path)
    rows = rows_of(found, tmp_path)
    first, second, third, alone = table.compare(found, rows)
    assert first["is_baseline"] and first["difference"] is None
    assert second["difference"].mean == pytest.approx(-1.0) and third["difference"].mean == pytest.approx(3.0)
    assert not alone["is_baseline"] and alone["difference"] is None
    page = pages.study_section(found, rows)
    line = next(line for line in page.splitlines() if line.startswith("| alone"))
    assert "to the family's first" in page and "+3.00" in page and "baseline" not in line
    assert plots.differences(found, [first, second, third, alone]).count("<svg") == 1


def test_health_columns_reach_the_csv_and_the_page(tmp_path):
    found = margins(tmp_path, "true")
    page = pages.study_page(found, rows_of(found, tmp_path, health=True))
    for column in ("mean cosine", "effective rank", "within between ratio", "warnings", "first warning"):
        assert f"<th>{column}</th>" in page
    fallen = next(row for row in page.split("<tr") if "loss.margin 0.5</td>" in row and "0.10" in row)
    assert "<td>3.00 ± 0.00</td><td>2.00 ± 0.00</td><td>4.00 ± 0.00</td>" in fallen
    assert [name for name in ("Differences", "Costs") if f"<h2>{name}</h2>" in page] == ["Differences", "Costs"]
    assert page.count('<figure role="img" aria-label="Differences">') == 1
    assert "health of the embeddings" not in pages.study_section(found, rows_of(found, tmp_path))


def test_labels_name_guidance_and_its_weight():
    guidance = [{"name": "LanguageGuidance", "texts": "class names", "weight": 7.5}]
    recipes = tuple(study.candidates({"data": "digits"}, {"grid": {"regularizers": [[], guidance]}}))
    assert list(table._labels("Proxy-Anchor", recipes).values()) == [
        "Proxy-Anchor: regularizers none",
        "Proxy-Anchor: regularizers LanguageGuidance 7.5",
    ]
    recipes = tuple(study.candidates({"data": "digits"}, {"grid": {"interpolation.epsilon": [0.0, 0.4]}}))
    assert list(table._labels("flow", recipes).values()) == ["flow: interpolation 0.0", "flow: interpolation 0.4"]

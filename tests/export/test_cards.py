"""The model card says how good a run is, and where it does not know, which command finds out."""

import json

import pytest

from tf_detreg import export, retrieval
from tf_detreg.export.cards import recall_table, smoothness_table


@pytest.fixture(scope="module")
def report(expected, labels):
    return retrieval.evaluate(expected, labels, k=(1, 2), resamples=100)


def test_a_run_without_results_names_the_commands(tmp_path):
    texts = export.run_results(tmp_path)
    assert f"tf-detreg train --run {tmp_path} --resume" in texts["evaluation"]
    assert f"tf-detreg analyze {tmp_path}" in texts["smoothness"]


@pytest.mark.parametrize("name", ["evaluation.json", "lipschitz.json"])
def test_a_damaged_result_is_named_with_the_command_that_makes_it(name, tmp_path):
    (tmp_path / name).write_text('{"a": "\x01"}')
    with pytest.raises(ValueError, match=rf"{name} is damaged: .* `tf-detreg .*{tmp_path}.* computes it again"):
        export.run_results(tmp_path)


def test_a_changed_key_of_an_evaluation_is_named(report, tmp_path):
    whole = {"validation": report.to_dict(), "test": report.to_dict()}
    path = tmp_path / "evaluation.json"
    for key in ("metrics", "intervals", "queries", "classes", "gallery", "protocol", "engine"):
        test = {name if name != key else f"{key}x": value for name, value in whole["test"].items()}
        path.write_text(json.dumps({**whole, "test": test}))
        with pytest.raises(ValueError, match=rf"damaged: 'test' has no '{key}'.* computes it again"):
            export.run_results(tmp_path)
    path.write_text(json.dumps({"validation": whole["validation"], "text": whole["test"]}))
    with pytest.raises(ValueError, match="holds 'text', which is none of validation, test"):
        export.run_results(tmp_path)


def test_the_card_of_a_run_holds_its_recall_and_its_smoothness(embedder, report, tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps({"validation": report.to_dict(), "test": report.to_dict()}))
    measured = {"head": {"spectral norm": {"median": 1.25, "max": 3.5, "samples": 8}}, "embedder": {}}
    (tmp_path / "lipschitz.json").write_text(json.dumps(measured))
    card = export.model_card(embedder, **export.run_results(tmp_path), license="CC0")
    low, high = report.intervals["recall@1"]
    cell = f"{100 * report.recall[1]:.2f} ({100 * low:.2f} – {100 * high:.2f})"
    assert f"| R@1 | {cell} | {cell} |" in card
    assert "Test classes: 48 queries of 12 classes among 48 items, leave-one-out, exact search." in card
    assert "| spectral norm | 1.25 (3.5) | – |" in card
    assert "CC0" in card
    assert "Not measured" not in card


def test_tables_are_whole(report):
    """Every line of a table has as many cells as its head, also where one part lacks a number."""
    few = {**report.to_dict(), "metrics": {"recall@1": None}, "intervals": {}}
    for text in (
        recall_table({"test": report.to_dict(), "validation": few}),
        recall_table({"validation": few}),
        smoothness_table({"a": {"x": {"median": 1, "max": 2}}, "b": {"y": {"median": 1, "max": 2}}}),
    ):
        rows = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert len(rows) >= 3
        assert len(set(rows)) == 1

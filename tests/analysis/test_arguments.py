"""What a run's page is made of; nothing is embedded here."""

import logging
import types

import keras
import numpy as np
import pytest

from tf_detreg import datasets, training
from tf_detreg.analysis import run_page, runs


@pytest.fixture
def compared(monkeypatch, tmp_path):
    """A run whose images are embedded by a stand-in, and what the comparison was given."""

    def images(count, names):
        pixels = np.zeros((count, 2, 2, 3), np.uint8)
        return datasets.ImageSet(np.arange(count) % len(names), names, pixels, name=f"birds/{len(names)}")

    splits = datasets.Splits(images(4, ["a", "b"]), images(0, ["a"]).subset([]), images(6, ["c", "d", "e"]))
    noted = types.SimpleNamespace(seeds=[], embedded=[], given=[])

    def embed(embedder, part, **options):
        noted.embedded.append((embedder, len(part), options))
        rows = np.arange(1, len(part)) if embedder == "trained" else np.arange(len(part))
        return training.Embedded(np.full((len(rows), 2), len(noted.embedded)), rows, part.labels[rows], None)

    inputs = [types.SimpleNamespace(shape=(None, 2, 3, 3))]
    trained = type("Trained", (str,), {"inputs": inputs})("trained")
    config = types.SimpleNamespace(seed=7, k=(1, 2), to_dict=lambda: {"seed": 7})
    noted.run = types.SimpleNamespace(
        splits=lambda: splits, embedder=trained, config=config, directory=tmp_path / "mine", history=["epoch"]
    )
    monkeypatch.setattr(training, "embed", embed)
    monkeypatch.setattr(keras.utils, "set_random_seed", noted.seeds.append)
    monkeypatch.setattr(run_page, "raw_pixels", lambda part: f"pixels of {len(part)}")
    monkeypatch.setattr(run_page, "compare", lambda *given: noted.given.append(given) or "reports")
    monkeypatch.setattr(runs, "build_embedder", lambda config, size: f"untrained at {tuple(size)}")
    return noted


def test_a_run_is_compared_with_its_untrained_model_on_the_same_images(compared):
    shown, final, reports = runs.compare_run(compared.run)
    assert reports == "reports" and [len(part) for part in shown] == [5] and final[0][0, 0] == 1
    assert compared.seeds == [7]
    title = {"title": "Embedding, before training"}
    assert compared.embedded == [("trained", 6, {}), ("untrained at (2, 3)", 5, title)]
    ((embeddings, labels, ranks),) = compared.given
    assert list(embeddings) == ["raw pixels", "before training", "after training"] and ranks == (1, 2)
    assert embeddings["raw pixels"] == ["pixels of 5"] and embeddings["before training"][0][0, 0] == 2
    assert labels[0].tolist() == shown[0].labels.tolist() == [1, 2, 0, 1, 2]


def test_a_model_that_cannot_be_built_again_is_left_out(compared, monkeypatch, caplog):
    def gone(config, size):
        raise OSError("moved")

    monkeypatch.setattr(runs, "build_embedder", gone)
    with caplog.at_level(logging.WARNING):
        runs.compare_run(compared.run)
    assert list(compared.given[0][0]) == ["raw pixels", "after training"] and "moved" in caplog.text


def test_the_page_of_a_run_has_its_name_history_and_classes(compared, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(run_page, "write", lambda *given, **options: asked.append((given, options)) or given[0])
    assert runs.write_report(compared.run) == (tmp_path / "mine" / "report.html", "reports")
    ((path, title, shown, final, reports, history, config, seed), options) = asked[0]
    assert (path, title, seed) == (tmp_path / "mine" / "report.html", "mine: birds/3", 7)
    assert (reports, history, config) == ("reports", ["epoch"], {"seed": 7}) and len(shown) == len(final) == 1
    assert tuple(options["trained_on"]) == ("a", "b")

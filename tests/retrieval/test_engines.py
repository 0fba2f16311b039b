"""ScaNN against exact search, and the choice between them."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import threadpoolctl

from tests import needs
from tf_detreg import retrieval
from tf_detreg.retrieval import (
    approximate,
    choosing,
    engines,
    exact,
    graphs,
    metrics,
    protocols,
    ranking,
    scann_library,
    tasks,
)

needs.scann()


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(600), 5)
    centers = rng.standard_normal((600, 24))
    points = centers[labels] + 0.8 * rng.standard_normal((3000, 24))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(scope="module")
def both(clustered):
    points, labels = clustered
    return {name: retrieval.evaluate(points, labels, engine=name, k=(1, 10)) for name in ("exact", "scann")}


def test_calibrated_scann_agrees_with_exact_search(both):
    near = both["scann"].approximation
    assert both["scann"].engine == "scann"
    assert near.recall >= 0.99
    assert near.interval[0] <= near.recall <= near.interval[1]
    assert 0.3 < both["exact"].recall[1] < 0.95  # the data is neither trivial nor hopeless
    for name in ("recall@1", "recall@10", "precision@10", "r_precision", "map@r"):
        assert both["scann"].metrics[name] == pytest.approx(both["exact"].metrics[name], abs=0.01), name
        assert near.metric_error[name][1] <= near.metric_error[name][0] <= near.metric_error[name][2]


def test_what_scann_cannot_know_is_left_out_and_said(both):
    assert "map" not in both["scann"].metrics and "mrr" not in both["scann"].metrics
    assert "map" in both["exact"].metrics
    assert any("left out" in note for note in both["scann"].notes)
    assert json.loads(both["scann"].to_json())["approximation"]["at"] == 10
    assert "of the true 10 nearest" in both["scann"].to_markdown()


def test_an_untuned_tree_would_be_wrong(clustered):
    """The trap that calibration is there for: few leaves of an unclustered gallery find few neighbors."""
    points = np.random.default_rng(1).standard_normal((4000, 48)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    kth = approximate.truth(points[:200], points, 10, np.arange(200))
    tree = approximate.Tree.build(points, 10)
    tree.visited, tree.rescored = tree.leaves // 8, 100
    assert tree.found(points[:200], 10, np.arange(200), kth).mean() < 0.9
    tree.tune(points[:200], 10, np.arange(200), kth, 0.99)
    assert tree.found(points[:200], 10, np.arange(200), kth).mean() >= 0.99


def test_a_large_gallery_tries_layouts_on_a_part_of_it(clustered, monkeypatch):
    points, _ = clustered
    monkeypatch.setattr(approximate, "TRIALS_FROM", 2000)
    monkeypatch.setattr(approximate, "TRIAL_SHARES", (0.25, 0.5))
    built, build = [], approximate.Tree.build
    monkeypatch.setattr(
        approximate.Tree, "build", lambda part, k, layout: built.append((len(part), layout)) or build(part, k, layout)
    )
    tuned = approximate.calibrate(points, points, 10, np.arange(len(points)))
    assert built[:-1] == [(size, layout) for size in (750, 1500) for layout in approximate.LAYOUTS]
    assert built[-1] == (3000, tuned.tree.layout)
    ids, _ = tuned.tree.search(points[:200], 10, np.arange(200))
    true, _ = exact.search(points[:200], points, 10, np.arange(200))
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, true, strict=True)])
    assert tuned.recall >= 0.99 and shared >= 0.96
    assert (ids != np.arange(200)[:, None]).all()


@pytest.mark.parametrize("grouped", [False, True])
def test_listed_ranks_follow_the_policy_of_exact_search(grouped):
    rng = np.random.default_rng(2)
    points = np.eye(6, dtype=np.float32)[rng.integers(6, size=60)]  # ties everywhere
    labels, groups = rng.integers(12, size=60), rng.integers(3, size=60) if grouped else None
    rules = protocols.choose(labels, None, groups, None)
    rows = np.arange(60)
    ids, scores = exact.search(points, points, 59, own=rows)
    vectors = ranking.Vectors(points, points)
    listed, cut = tasks.listed_ranks(ranking.Block(scores, rows, vectors, ids), rules)
    true = ranking.positive_ranks(ranking.Block(points @ points.T, rows, vectors), *rules.same_class(rows))
    assert not len(cut)  # the lists hold the whole gallery
    if grouped:  # items of the same class and group are in the list, but count neither as right nor as wrong
        assert (rules.relevant() < np.bincount(labels)[labels] - 1).any()
    np.testing.assert_array_equal(listed.rank, true.rank)
    np.testing.assert_array_equal(listed.query, true.query)
    np.testing.assert_array_equal(listed.relevant, true.relevant)


@pytest.mark.parametrize("copied", [0, exact._COPIED_BYTES])  # multiplied by NumPy where it lies, or by TensorFlow
@pytest.mark.parametrize("share", [0.1, 0.99])
def test_what_is_left_out_is_not_found(copied, share, monkeypatch):
    monkeypatch.setattr(exact, "_COPIED_BYTES", copied)
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(2000, 8)).astype(np.float32), rng.normal(size=(30, 8)).astype(np.float32)
    left_out = rng.random(2000) < share
    kept = np.flatnonzero(~left_out)
    ids, scores = exact.search(queries, gallery, 5, left_out=left_out, progress=False)
    wanted, best = exact.search(queries, gallery[kept], 5, progress=False)
    np.testing.assert_array_equal(ids, kept[wanted])
    np.testing.assert_allclose(scores, best, rtol=1e-6)


def test_a_few_queries_start_no_threads_and_copy_no_gallery(monkeypatch):
    """Threads, a look for BLAS libraries and a copy took 20 times as long as to compare a hundred items."""
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(3000, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    wanted = exact.search(queries, gallery, 5, progress=False)
    monkeypatch.setattr(exact.concurrent.futures, "ThreadPoolExecutor", lambda *_: pytest.fail("a thread was started"))
    looks = []
    find = threadpoolctl.ThreadpoolController._load_libraries
    monkeypatch.setattr(
        threadpoolctl.ThreadpoolController, "_load_libraries", lambda self: looks.append(1) or find(self)
    )
    monkeypatch.setattr(exact, "_COPIED_FOR_FEW", 1000)
    copies = []
    copy = exact.Scores._copy
    monkeypatch.setattr(exact.Scores, "_copy", lambda self, *given: copies.append(1) or copy(self, *given))
    exact._blas.cache_clear()
    for start in range(0, 20, 4):
        ids, scores = exact.search(queries[start : start + 4], gallery, 5, progress=False)
        np.testing.assert_array_equal(ids, wanted[0][start : start + 4])
        np.testing.assert_allclose(scores, wanted[1][start : start + 4], rtol=1e-5)
    assert len(looks) == 1 and not copies
    np.testing.assert_array_equal(exact.search(queries, gallery, 5, progress=False)[0], wanted[0])
    assert len(looks) == 1 and len(copies) == 1


def test_auto_takes_exact_search_for_small_galleries(clustered):
    assert retrieval.evaluate(*clustered, k=1, metrics="recall").engine == "exact"


def test_auto_takes_scann_when_exact_search_is_measured_to_be_slow(clustered, monkeypatch):
    monkeypatch.setattr(engines, "_exact_seconds", lambda task: 10_000.0)
    monkeypatch.setattr(engines, "_expected_seconds", lambda *_: {"usearch": 200.0, "scann": 100.0})
    assert retrieval.evaluate(*clustered, k=1, metrics="recall").engine == "scann"


@pytest.mark.parametrize("metrics", ["all", "recall"])
def test_usearch_evaluates_as_exact_search_does(clustered, both, metrics):
    needs.usearch()
    found = retrieval.evaluate(*clustered, engine="usearch", k=(1, 10), metrics=metrics)
    near = found.approximation
    assert found.engine == "usearch" and near.recall >= 0.99 and "nodes looked at" in near.settings
    for name in set(found.metrics) & set(both["exact"].metrics):
        assert found.metrics[name] == pytest.approx(both["exact"].metrics[name], abs=0.01), name
    assert "usearch found 9" in found.summary() and "ScaNN" not in found.to_markdown()


@pytest.mark.parametrize("usable", [["scann"], ["usearch"], ["usearch", "scann"], []])
def test_auto_takes_what_is_installed_and_expected_to_be_done_first(clustered, monkeypatch, usable):
    """Both are tried on a part, and what each took there is carried on to the whole."""
    tried = []

    def trials(part, k, names, target):
        tried.append(names)
        return {name: choosing.Trial(*{"scann": (1.0, 1e-3), "usearch": (1.0, 1e-4)}[name]) for name in names}

    monkeypatch.setattr(choosing, "usable", lambda engine="auto": usable)
    monkeypatch.setattr(choosing, "trials", trials)
    monkeypatch.setattr(choosing, "reasons", lambda engine="auto": "none is installed")
    monkeypatch.setattr(approximate, "SAMPLE", 100)
    monkeypatch.setattr(engines, "_exact_seconds", lambda task: 10_000.0)
    monkeypatch.setattr(engines, "_tree_seconds", lambda task, seconds: 100.0 + seconds / 20)
    task = tasks.Task(
        clustered[0], clustered[0], protocols.choose(clustered[1], None, None, None), (1,), "all", 0, False
    )
    expected = engines._expected_seconds(task, 10_000.0, 0.99)
    assert sorted(expected) == sorted(usable)
    if len(usable) == 2:  # all of the gallery is in the part: nothing is carried on
        assert expected["scann"] == pytest.approx(100.0 + 3000 * 1e-3)
        assert expected["usearch"] == pytest.approx(1.0 + 200 * 10_000 / 3000 + 3000 * 1e-4)
    assert tried == ([usable] if "usearch" in usable else [])
    report = retrieval.evaluate(*clustered, k=1, metrics="recall")
    assert report.engine == (["scann"] if "scann" in usable else [*usable, "exact"])[0]
    assert ("none is installed" in report.notes) == (not usable)


@pytest.mark.parametrize("hidden", ["scann", "usearch"])
def test_evaluation_says_what_is_not_installed(clustered, monkeypatch, hidden):
    module = approximate if hidden == "scann" else graphs
    monkeypatch.setattr(module, "available", lambda: f"{hidden} is hidden")
    report = retrieval.evaluate(*clustered, engine=hidden, k=1, metrics="recall")
    assert report.engine == "exact" and report.notes == (f"{hidden} is hidden",)
    monkeypatch.setattr(engines, "_exact_seconds", lambda task: 10_000.0)
    monkeypatch.setattr(engines, "_tree_seconds", lambda task, seconds: 100.0)
    monkeypatch.setattr(approximate, "SAMPLE", 100)
    other = {"scann": "usearch", "usearch": "scann"}[hidden]
    assert retrieval.evaluate(*clustered, k=1, metrics="recall").engine == other


def test_trials_measure_each_engine_and_pass_over_one_that_fails(clustered, monkeypatch):
    needs.usearch()
    found = choosing.trials(clustered[0], 10, choosing.ENGINES, 0.99)
    assert all(trial.build > 0 and trial.query > 0 for trial in found.values()) and len(found) == 2

    def fail(*_, **__):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(graphs.Graph, "build", fail)
    assert list(choosing.trials(clustered[0], 10, choosing.ENGINES, 0.99)) == ["scann"]


def test_auto_returns_to_exact_search_when_the_tuned_tree_is_slower(clustered, monkeypatch):
    monkeypatch.setattr(engines, "_NEVER_BELOW", 0.0)
    monkeypatch.setattr(engines, "_exact_seconds", lambda task: 1e-9)
    monkeypatch.setattr(engines, "_expected_seconds", lambda *_: {"scann": 0.0})
    report = retrieval.evaluate(*clustered, k=1, metrics="recall")
    assert report.engine == "exact"
    assert any("would have taken" in note for note in report.notes)


@pytest.mark.parametrize(
    "error", [ImportError("none"), OSError("no library"), tf.errors.NotFoundError(None, None, "undefined symbol")]
)
@pytest.mark.parametrize("engine", ["scann", "auto"])
def test_where_scann_cannot_be_loaded_exact_search_answers_with_a_notice(clustered, monkeypatch, error, engine):
    def find_spec(name, path=None, target=None):
        if name == "scann":
            raise error

    monkeypatch.setattr(engines, "_NEVER_BELOW", 0.0)
    monkeypatch.delitem(sys.modules, "scann", raising=False)
    monkeypatch.setattr(sys, "meta_path", [types.SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    report = retrieval.evaluate(*clustered, k=1, engine=engine, metrics="recall")
    assert report.engine == "exact"
    assert "ScaNN cannot be loaded" in (report.notes[0] if engine == "scann" else approximate.available())


WITHOUT_OPERATIONS = """
import sys
import numpy as np
import tensorflow as tf

def broken(name):
    raise tf.errors.NotFoundError(None, None, "_scann_ops.so: undefined symbol")

tf.load_op_library = broken
try:
    import scann
except tf.errors.NotFoundError:
    pass
else:
    raise SystemExit("scann loaded its operations")
from tf_detreg import export, retrieval
from tf_detreg.retrieval import scann_library

points = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
report = retrieval.evaluate(points, np.arange(1500) // 5, engine="scann", k=1, metrics="recall")
assert report.engine == "scann", report.notes
assert "scann" not in sys.modules
try:
    scann_library.operations()
except ImportError as error:
    print(error)
"""


def test_searching_needs_none_of_scanns_tensorflow_operations():
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPERATIONS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "TensorFlow 2.20 alone" in done.stdout and 'engine="exact"' in done.stdout


@pytest.mark.parametrize("broken", ["builder", "search_batched_parallel"])
def test_auto_never_raises_because_scann_fails(clustered, monkeypatch, broken):
    def fail(*_, **__):
        raise RuntimeError("a bug of ScaNN")

    monkeypatch.setattr(engines, "_exact_seconds", lambda task: 10_000.0)
    monkeypatch.setattr(engines, "_expected_seconds", lambda *_: {"usearch": 200.0, "scann": 100.0})
    library = scann_library.searchers()
    monkeypatch.setattr(library if broken == "builder" else library.ScannSearcher, broken, fail)
    report = retrieval.evaluate(*clustered, k=1, metrics="recall")
    assert report.engine == "exact" and "a bug of ScaNN" in report.notes[0]
    with pytest.raises(approximate.EngineFailed, match="a bug of ScaNN"):
        retrieval.evaluate(*clustered, k=1, metrics="recall", engine="scann")


def test_a_small_gallery_is_answered_exactly_with_a_notice():
    points = np.random.default_rng(3).standard_normal((40, 8))
    report = retrieval.evaluate(points, np.arange(40) // 4, engine="scann", k=1)
    assert report.engine == "exact"
    assert any("too small" in note for note in report.notes)


def test_every_metric_name_is_in_the_table():
    rng = np.random.default_rng(4)
    points, labels = rng.standard_normal((30, 4)).astype(np.float32), np.arange(30) // 3
    for what in ("all", "recall"):
        table = exact.per_query(points, points, protocols.choose(labels, None, None, None), (1, 2), what)
        assert set(table.values) == {*metrics.names((1, 2), what), "first_rank", "relevant"}


@pytest.mark.parametrize("what", ["all", "recall"])
def test_ties_deeper_than_scanns_list_are_answered_exactly_and_said(what):
    """Equal vectors of two classes: every irrelevant item stands before the first relevant one, in every engine."""
    rng, rows = np.random.default_rng(0), np.arange(1200)
    same = np.tile(rng.standard_normal(16), (1200, 1))
    heaps = np.eye(30)[rows % 30]  # 30 points, 40 items each
    cases = [(heaps, rows // 30 % 2)]
    if what == "all":
        cases += [(same, rows % 2), (same + 1e-9 * rng.standard_normal(same.shape), rows % 2)]
    for points, labels in cases:
        exactly, found = (
            retrieval.evaluate(points, labels, k=8, engine=engine, metrics=what, resamples=0)
            for engine in ("exact", "scann")
        )
        assert found.engine == "scann"
        for name, value in found.metrics.items():
            assert value == pytest.approx(exactly.metrics[name], abs=0.01), name
        assert any("ends within a tie" in note for note in found.notes)
        assert any("Ties decide" in note for note in found.notes)
        np.testing.assert_array_equal(found.per_query["recall@8"], 0)


@pytest.mark.parametrize(
    ("queries", "counts", "seconds"),
    [(100, [16, 16, 48], 100 * 0.01), (40, [16, 16, 40], 40 * 0.01), (16, [], 0.0), (7, [], 0.0)],
)
def test_exact_search_is_measured_on_one_and_on_three_blocks_of_queries(queries, counts, seconds, monkeypatch):
    """Its cost is the slope: what each call takes whatever the number of queries does not count."""
    clock, seen = [0.0], []

    def exactly(rows):
        seen.append(len(rows))
        clock[0] += (5.0 if len(seen) > 1 else 90.0) + 0.01 * len(rows)

    monkeypatch.setattr(engines, "_TOO_SMALL", 1)
    monkeypatch.setattr(engines, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(exact, "workers", lambda: 2)
    monkeypatch.setattr(exact, "block_size", lambda items, largest: 8)
    task = types.SimpleNamespace(
        queries=np.zeros((queries, 4)),
        gallery=np.zeros((50, 4)),
        rules=types.SimpleNamespace(largest_class=3),
        exactly=exactly,
    )
    assert engines._exact_seconds(task) == pytest.approx(seconds)
    assert seen == counts
    monkeypatch.setattr(engines, "_TOO_SMALL", queries * 200 + 1)
    assert engines._exact_seconds(task) == 0.0 and seen == counts


@pytest.mark.parametrize(
    ("k", "what", "itself", "depth"),
    [
        (2, "recall", True, 4),
        (2, "recall", False, 5),
        (2, "all", True, 8),
        (2, "all", False, 9),
        (9, "recall", True, 9),  # of the ten items one is the query
        (9, "recall", False, 10),
    ],
)
def test_a_tree_is_asked_for_what_the_metrics_need_and_no_more_than_there_is(k, what, itself, depth, monkeypatch):
    asked = []

    def calibrate(queries, gallery, depth, own, *options, build):
        assert build == "builder of scann"
        asked.append((depth, None if own is None else own.tolist()))
        raise approximate.EngineFailed("enough")

    monkeypatch.setattr(approximate, "calibrate", calibrate)
    monkeypatch.setattr(engines.choosing, "builder", lambda engine, progress: f"builder of {engine}")
    rules = types.SimpleNamespace(
        relevant=lambda: np.array([1, 6, 2]), left_out=lambda: np.array([1, 3, 2]), searches_itself=itself
    )
    task = tasks.Task(np.eye(10), np.eye(10), rules, (1, k), what, 0, False)
    with pytest.raises(approximate.EngineFailed):
        engines._approximately(task, "scann", 0.99, 1.0)
    assert asked == [(depth, list(range(10)) if itself else None)]


@pytest.mark.parametrize("size", [7, 100])
def test_every_query_is_counted_once(size, counted):
    from tf_detreg.retrieval import exact

    done = []
    exact.in_blocks(40, size, lambda rows: done.extend(rows.tolist()), "Ranking", None)
    assert sorted(done) == list(range(40)) and counted == {"Ranking": [(40, 40)]}


@pytest.mark.parametrize(
    ("differences", "wanted"),
    [
        ([0.0] * 300, (0, -0.01, 0.01)),
        ([1.0, 1.0], (1, -0.5, 1)),
        ([-1.0, -1.0], (-1, -1, 0.5)),
        ([np.nan, 0.5, np.nan], (0.5, -1, 1)),
        ([0.1, 0.3] * 200, (0.2, 0.1902, 0.2098)),
        ([np.nan], (np.nan,) * 3),
    ],
)
def test_the_interval_of_an_error_lies_in_what_is_possible(differences, wanted):
    np.testing.assert_allclose(engines._error(np.array(differences)), wanted, atol=1e-9)

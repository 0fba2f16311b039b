"""Laws that hold for every set of embeddings, ties and duplicates included."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from tf_detreg import retrieval
from tf_detreg.retrieval import exact, metrics, protocols, ranking

KS = (1, 2, 4)
QUICK = hypothesis.settings(max_examples=25, deadline=None)


@st.composite
def cases(draw):
    """A few integer vectors, so that equal scores and equal vectors are common; at least one pair of one class."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    count, dim = draw(st.integers(6, 60)), draw(st.integers(1, 9))
    points = rng.integers(-2, 3, size=(count, dim)).astype(np.float32)
    points[~points.any(axis=1), 0] = 1
    labels = rng.integers(0, draw(st.integers(1, 8)), size=count)
    labels[:2] = 0
    return points, labels, rng


def measure(points, labels, **more):
    return retrieval.evaluate(points, labels, k=KS, resamples=0, **more)


@QUICK
@hypothesis.given(cases())
def test_a_permutation_changes_nothing(case):
    points, labels, rng = case
    order = rng.permutation(len(points))
    before, after = measure(points, labels), measure(points[order], labels[order])
    for name, values in before.per_query.items():
        np.testing.assert_allclose(after.per_query[name], values[order], rtol=0, atol=1e-12, err_msg=name)


@QUICK
@hypothesis.given(cases())
def test_a_rotation_and_a_scale_change_nothing(case):
    points, labels, rng = case
    rotation, _ = np.linalg.qr(rng.standard_normal((points.shape[1],) * 2))
    before, after = measure(points, labels), measure(3.0 * points @ rotation, labels)
    np.testing.assert_allclose(after.per_query["first_rank"], before.per_query["first_rank"])


@QUICK
@hypothesis.given(cases())
def test_far_wrong_items_change_nothing(case):
    points, labels, _ = case
    far = np.zeros((3, points.shape[1] + 1), np.float32)
    far[:, -1] = -1  # orthogonal to all others once those get a shared positive coordinate
    near = np.concatenate([points, np.full((len(points), 1), 9.0, np.float32)], axis=1)
    before = measure(near, labels, gallery=near, gallery_labels=labels)
    after = measure(
        near, labels, gallery=np.concatenate([near, far]), gallery_labels=np.concatenate([labels, [99, 98, 97]])
    )
    assert before.metrics == after.metrics


@QUICK
@hypothesis.given(cases())
def test_order_between_metrics(case):
    points, labels, _ = case
    report = measure(points, labels)
    recalls = list(report.recall.values())
    assert recalls == sorted(recalls)
    assert all(0 <= value <= 1 for value in report.metrics.values())
    assert report.map_at_r <= report.metrics["r_precision"] + 1e-12
    assert report.recall[1] == report.precision[1]
    assert report.recall[1] <= report.metrics["mrr"]
    assert all(report.recall[k] >= report.precision[k] for k in KS)


@QUICK
@hypothesis.given(cases(), st.booleans(), st.sampled_from([0, 1e2, 1e4]))
def test_ranks_equal_those_of_a_full_sort_in_float64(case, sort_rows, spread):
    points, labels, _ = case
    # Some cases lie so close together that float32 scores cannot order them.
    unit = points + np.eye(1, points.shape[1]) * spread
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    rows = np.arange(len(points))
    exactly = unit.astype(np.float64) / np.linalg.norm(unit.astype(np.float64), axis=1, keepdims=True)
    scores = -np.linalg.norm(exactly[:, None] - exactly[None], axis=2)
    rules = protocols.choose(labels, None, None, None)
    limit, ranking._COUNT_UP_TO = ranking._COUNT_UP_TO, 0 if sort_rows else 10**9
    try:
        block = ranking.Block(unit @ unit.T, rows, ranking.Vectors(unit, unit))
        found, best = (ranking.positive_ranks(block, *rules.same_class(rows), first=first) for first in (False, True))
    finally:
        ranking._COUNT_UP_TO = limit
    lists = []
    for i, row in enumerate(scores):
        right = (labels == labels[i]) & (np.arange(len(row)) != i)
        mine = np.sort(row[right])[::-1]
        wrong = row[labels != labels[i]]
        lists.append([j + 1 + int((wrong >= score - ranking.TIE).sum()) for j, score in enumerate(mine)])
    expected = metrics.Ranks.of(lists)
    np.testing.assert_array_equal(found.rank, expected.rank)
    np.testing.assert_array_equal(found.query, expected.query)
    np.testing.assert_array_equal(best.first, expected.first)


@QUICK
@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(1, 40))
def test_the_best_of_a_row_are_those_of_a_full_sort(seed, items, k):
    k = min(k, items)
    scores = np.random.default_rng(seed).integers(0, 50, size=(5, items)).astype(np.float32)
    columns, values = exact.top(scores, k)
    np.testing.assert_array_equal(columns, np.argsort(-scores, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(scores, columns, axis=1), values)


def test_blocks_and_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    points, labels = rng.standard_normal((300, 8)), rng.integers(0, 30, 300)
    whole = measure(points, labels)
    monkeypatch.setattr(exact, "block_size", lambda *_: 7)
    assert measure(points, labels).metrics == whole.metrics


def test_the_three_ways_to_multiply_agree(monkeypatch):
    rng = np.random.default_rng(0)
    points, labels = rng.standard_normal((300, 8)), rng.integers(0, 30, 300)
    transposed = measure(points, labels)
    monkeypatch.setattr(exact, "_TRANSPOSED_BYTES", 0)
    assert measure(points, labels).metrics == transposed.metrics
    monkeypatch.setattr(exact, "_COPIED_BYTES", 0)
    assert measure(points, labels).metrics == transposed.metrics


@pytest.mark.parametrize("count", [1, 40, 200])
@pytest.mark.parametrize("k", [3, 90])
def test_a_gallery_that_is_read_where_it_lies_is_compared_in_parts(count, k, monkeypatch):
    """Also where a part has fewer items than are asked for, items are hidden, and equal scores lie in two parts."""
    rng = np.random.default_rng(0)
    gallery = rng.integers(-1, 2, size=(400, 5)).astype(np.float32)  # sums are exact, and many are equal
    queries, itself = gallery[:count].copy(), np.arange(count)
    hidden = np.zeros(400, bool)
    hidden[rng.permutation(400)[:150]] = True
    given = [{}, {"own": itself}, {"left_out": hidden}, {"own": itself, "left_out": hidden}]
    expected = [exact.search(queries, gallery, k, progress=False, **more) for more in given]
    monkeypatch.setattr(exact, "_COPIED_BYTES", 0)
    monkeypatch.setattr(exact, "_COPIED_FOR_FEW", 0)
    monkeypatch.setattr(exact, "workers", lambda: 2)
    monkeypatch.setattr(exact, "_SCORES_BYTES", 2 * 4 * 64 * min(count, 64))  # parts of at least 64 items
    read, multiply = [], exact.Scores.__call__
    monkeypatch.setattr(
        exact.Scores,
        "__call__",
        lambda self, asked, part: read.append((len(asked), part)) or multiply(self, asked, part),
    )
    for more, (ids, scores) in zip(given, expected, strict=True):
        found = exact.search(queries, gallery, k, progress=False, **more)
        np.testing.assert_array_equal(found[0], ids)
        np.testing.assert_array_equal(found[1], scores)
    assert len({part.start for _, part in read}) > 2
    # The gallery is read once for a block of queries; a block of two queries, as its scores allow, would read it often.
    assert sum(part.stop - part.start for _, part in read) / len(gallery) / len(given) <= -(-count // 64) + 1
    assert max(asked * (part.stop - part.start) * 4 for asked, part in read) <= exact._SCORES_BYTES / 2


@pytest.mark.parametrize("room", [True, False])
def test_a_gpu_multiplies_if_it_holds_the_gallery(monkeypatch, room):
    """Without one here, TensorFlow's soft placement answers in its place; what is asked of it is what counts."""
    points, labels = np.random.default_rng(0).standard_normal((300, 8)), np.arange(300) // 10
    plain, asked, device, constant = measure(points, labels), [], tf.device, tf.constant

    def small_gpu(value):
        if asked[-1] == "/GPU:0" and not room:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return constant(value)

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(tf, "device", lambda name: asked.append(name) or device(name))
    monkeypatch.setattr(tf, "constant", small_gpu)
    assert measure(points, labels).metrics == plain.metrics
    assert set(asked) == ({"/GPU:0"} if room else {"/GPU:0", "/CPU:0"})
    assert asked[-1] == ("/GPU:0" if room else "/CPU:0")


def test_blocks_keep_within_the_memory_bound():
    for gallery in (1_000, 60_000, 1_000_000):
        in_flight = exact.block_size(gallery, 100) * exact.workers() * (4 * gallery + 64 * 100)
        assert in_flight <= 450 << 20 or exact.block_size(gallery, 100) == 1


def test_an_error_in_a_block_reaches_the_caller():
    def task(rows):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        exact.in_blocks(10, 2, task, "", False)

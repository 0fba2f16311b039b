"""An index that moves to another model: what can be embedded again, what is mapped, and what that loses."""

import numpy as np
import pytest

from tf_detreg.index import Index, refreshing


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return unit(np.repeat(rng.standard_normal((60, 12)), 10, axis=0) + 0.4 * rng.standard_normal((600, 12)))


@pytest.fixture
def index(points, tmp_path):
    made = Index(points, [f"item {row}" for row in range(600)], [{"n": row} for row in range(600)], "old")
    loaded = Index.load(made.save(tmp_path / "i"))
    loaded.remove(["item 7"])
    return loaded


def turned(points, noise=0.0, dim=12, seed=1):
    """What a new model might make of the same pictures."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((max(12, dim), max(12, dim))))[0][:12, :dim]
    return unit(points @ turn + noise * rng.standard_normal((len(points), dim)) / np.sqrt(dim))


def test_all_items_embedded_again_are_a_fresh_index(index, points):
    new = turned(points, noise=1.0, dim=20)
    reader = Index.load(index._store.directory)
    assert reader.dimension == 12
    done = index.refresh(new, [f"item {row}" for row in range(600)], "new", note={"run": "later"})
    assert done == (599, 0, None)
    for one in (index, reader):
        assert (one.dimension, one.fingerprint, len(one)) == (20, "new", 599)
        kept = [row for row in range(600) if row != 7]
        fresh = Index(new[kept], [f"item {row}" for row in kept])
        assert one.search(new[:40], 5).ids == fresh.search(new[:40], 5).ids
        assert one.metadata("item 8") == {"n": 8, "run": "later"} and list(one) == fresh.ids
        with pytest.raises(ValueError, match="another model"):
            one.search(new[:1], 1, fingerprint="old")
    index.verify()
    index.add(new[7:8], ["item 7"], fingerprint="new")
    assert index.search(new[7], 1).ids == [["item 7"]]


def test_items_without_pictures_are_mapped_with_a_measured_loss(index, points):
    new = turned(points, noise=0.1)
    gone = set(range(0, 600, 4))
    rows = [row for row in range(600) if row not in gone]
    done = index.refresh(new[rows], [f"item {row}" for row in rows], "new", limit=0.5)
    assert (done.embedded, done.mapped) == (449, 150)
    # Measured here by other means: true neighbors among the items that were mapped.
    lost = sorted(gone)
    true = Index(new[lost], lost).search(new[lost], 11).ids
    stored = Index(np.stack([index.vector(f"item {row}") for row in lost]), lost).search(new[lost], 11).ids
    share = np.mean([len((set(a) & set(b)) - {row}) / 10 for row, a, b in zip(lost, true, stored, strict=True)])
    assert 0 < done.loss < 0.5 and abs(1 - share - done.loss) < 0.12


def test_a_pure_turn_loses_nothing_also_between_dimensions(index, points):
    new = turned(points, dim=16)
    rows = list(range(100, 600))
    done = index.refresh(new[rows], [f"item {row}" for row in rows], "new")
    assert done.mapped == 99 and done.loss < 1e-3
    np.testing.assert_allclose(index.vector("item 3"), new[3], atol=1e-4)


def test_a_map_that_loses_too_much_is_refused_and_nothing_changes(index, points):
    unrelated = unit(np.random.default_rng(3).standard_normal((500, 12)))
    before = index.version
    ids = [f"item {row}" for row in range(100, 600)]
    with pytest.raises(
        ValueError, match=r"99 items cannot be embedded again, and a map .* loses 9\d\.\d % .*`limit`=0.1"
    ):
        index.refresh(unrelated, ids, "new")
    with pytest.raises(ValueError, match="are too few to map them: 48 or more"):
        index.refresh(unrelated[:47], ids[:47], "new")
    assert index.version == before and index.fingerprint == "old"
    np.testing.assert_array_equal(index.vector("item 3"), points[3])


@pytest.mark.parametrize(("more", "message"), [({"limit": 2}, "`limit` must be"), ({"k": 0}, "`k` must be")])
def test_bad_arguments_are_named(index, points, more, message):
    with pytest.raises(ValueError, match=message):
        index.refresh(points, [f"item {row}" for row in range(600)], "new", **more)
    with pytest.raises(ValueError, match="one id for each"):
        index.refresh(points, ["a"], "new")


def test_the_map_is_orthogonal():
    rng = np.random.default_rng(0)
    wide = refreshing.orthogonal_map(rng.standard_normal((50, 4)), rng.standard_normal((50, 6)))
    np.testing.assert_allclose(wide @ wide.T, np.eye(4), atol=1e-5)
    narrow = refreshing.orthogonal_map(rng.standard_normal((50, 6)), rng.standard_normal((50, 4)))
    np.testing.assert_allclose(narrow.T @ narrow, np.eye(4), atol=1e-5)

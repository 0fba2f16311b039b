"""Candidates by compressed vectors, over several blocks of the gallery."""

import numpy as np
import pytest

from tf_detreg.retrieval import codes


@pytest.fixture
def vectors():
    points = np.random.default_rng(0).standard_normal((50, 64))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [7, 10, 49, 50, 1000])
@pytest.mark.parametrize("kind", ["float16", "int8", "binary"])
def test_candidates_are_the_nearest_codes_however_the_gallery_is_divided(kind, block, vectors, monkeypatch):
    monkeypatch.setattr(codes, "_BLOCK", block)
    made = codes.Codes.build(vectors, 3, codes.Layout(kind))
    queries = vectors[[4, 11, 49]]
    if kind == "binary":
        bits = made.projected(vectors) > made.scale
        near = -(bits[None] != (made.projected(queries) > made.scale)[:, None]).sum(axis=2).astype(float)
    else:
        stored = made.codes.astype(np.float64) * (made.scale / 127 if kind == "int8" else 1)
        near = made.projected(queries) @ stored.T
    for count in (1, 5, 10, 49, 50, 60):
        found = made.candidates(queries, count)
        kept = min(count, 50)
        assert found.shape == (3, kept)
        for ids, scores in zip(found, near, strict=True):
            assert len(set(ids.tolist())) == kept
            np.testing.assert_allclose(np.sort(scores[ids]), np.sort(scores)[50 - kept :], atol=1e-6)
    assert set(made.candidates(queries, 1)[:, 0]) == {4, 11, 49}

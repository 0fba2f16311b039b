"""Where a drawn character stands in its image."""

import numpy as np

from tf_detreg.datasets import drawing


def test_glyphs_are_placed_near_the_center_turned_and_scaled_a_little():
    """The maps lead from the doubled canvas to the glyph: its middle comes from near the canvas' middle."""
    size, shapes = 32, np.random.default_rng(0).integers(5, 60, (400, 2))
    maps = drawing._placements(shapes, size, np.random.default_rng(1)).reshape(400, 2, 3)
    middle = shapes[:, ::-1] / 2 + 1
    center = np.linalg.solve(maps[:, :, :2], (middle - maps[:, :, 2])[..., None])[..., 0]
    assert np.abs(center - size).max() <= 0.2 * size + 1e-6 and np.abs(center - size).max() > 0.15 * size
    # The same draws in every version: a data set stays what it was measured on.
    draws = np.random.default_rng(1)
    draws.uniform(size=(4, 400))  # angle, slant and the zoom of both sides
    np.testing.assert_allclose(center, size + 2 * size * draws.uniform(-0.1, 0.1, (400, 2)), atol=1e-6)
    # Areas: a zoom of 0.8 to 1.15 a side, at most 1.3, and so that the larger side stays below 1.6 of the canvas' half.
    zoom = np.sqrt(1 / np.linalg.det(maps[:, :, :2]))
    fit = np.minimum(1.3, 1.6 * size / shapes.max(axis=1))
    assert (zoom / fit >= 0.8 - 1e-6).all() and (zoom / fit <= 1.15 + 1e-6).all()
    assert (zoom / fit).min() < 0.87 and (zoom / fit).max() > 1.07

"""The numerical limits that the documentation states."""

import pytest
import tensorflow as tf

from tf_detreg import heads
from tf_detreg.heads.limits import half_precision_error, inverse_error


@pytest.mark.parametrize("kind", [heads.RealNVP, heads.NICE, heads.Glow])
def test_float32_inverse_is_exact_near_the_start_and_good_for_grown_weights(kind):
    assert inverse_error(kind(128, hidden=64), growth=0.0) < 2e-6
    assert inverse_error(kind(128, hidden=64), growth=0.5) < 1e-4


def test_inverse_degrades_with_the_bound():
    tight, loose = (inverse_error(heads.RealNVP(128, hidden=64, scale_bound=bound), 1.0) for bound in (0.5, 4.0))
    assert tight < 1e-1 and loose > 10 * tight


def test_float64_has_no_such_limit():
    assert inverse_error(heads.RealNVP(64, hidden=32, dtype="float64"), 1.0) < 1e-9


def test_half_precision_loses_the_inverse():
    full, half, brain = (
        half_precision_error(heads.RealNVP(128, hidden=64), dtype) for dtype in (tf.float32, tf.float16, tf.bfloat16)
    )
    assert full < 1e-4 < 3e-4 < half < brain


def test_the_table_has_a_row_for_each_head_and_each_type(monkeypatch):
    from tf_detreg.heads import limits

    monkeypatch.setattr(limits, "inverse_error", lambda head, growth: 1e-5 * (1 + growth))
    monkeypatch.setattr(limits, "half_precision_error", lambda head, dtype: 1e-3)
    text = limits.table()
    for row in (
        "| NICE, depth 12 | 1e-05 | 1e-05 | 2e-05 | 2e-05 | 3e-05 |",
        "| RealNVP, depth 24, bound 0.5 |",
        "| float16 | 1e-03 |",
    ):
        assert row in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + 6 + 4 + 3

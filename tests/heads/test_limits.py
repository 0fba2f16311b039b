"""The numerical limits that the documentation states."""

import pytest
import tensorflow as tf

from tf_detreg import heads
from tf_detreg.heads import limits
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


def test_the_table_has_a_row_for_each_head_and_a_column_for_each_growth(monkeypatch):
    measured = []

    def error(head, growth):
        measured.append((type(head).__name__, getattr(head, "depth", head.get_config().get("steps")), head.scale_bound))
        assert (head.dim, head.hidden) == (512, 128)
        return 0.02 + growth

    monkeypatch.setattr(limits, "inverse_error", error)
    monkeypatch.setattr(limits, "half_precision_error", lambda head, dtype: dtype.size)
    first, second = limits.table().split("\n\n")
    rows = first.splitlines()[2:]
    assert {row.split(" | ", 1)[1] for row in rows} == {"2e-02 | 3e-01 | 5e-01 | 1e+00 | 2e+00 |"}
    names = [row.split(" | ", 1)[0] for row in rows]
    shown = [
        f"RealNVP, depth {d}, bound {b}" for d, b in ((4, 0.5), (12, 0.3), (12, 0.5), (12, 1.0), (12, 2.0), (24, 0.5))
    ]
    shown += ["NICE, depth 12", "Glow, depth 12, bound 0.5", "FFJORD, rk4, 4 steps", "FFJORD, rk4, 16 steps"]
    assert names == [f"| {name}" for name in shown]
    assert measured[::5] == [
        *(("RealNVP", d, b) for d, b in ((4, 0.5), (12, 0.3), (12, 0.5), (12, 1.0), (12, 2.0), (24, 0.5))),
        *(("NICE", 12, 0.5), ("Glow", 12, 0.5), ("FFJORD", 4, 0.5), ("FFJORD", 16, 0.5)),
    ]
    assert second.splitlines()[2:] == ["| float32 | 4e+00 |", "| float16 | 2e+00 |", "| bfloat16 | 2e+00 |"]

"""The least and the largest that an argument of a head may be is taken, and what lies beyond is refused."""

import pytest

from tf_detreg import heads

HEADS = [heads.RealNVP, heads.NICE, heads.Glow, heads.FFJORD, heads.ResidualMLP, heads.Linear]
COUPLING = HEADS[:3]


@pytest.mark.parametrize(
    ("kinds", "name", "taken", "refused"),
    [
        (HEADS, "dim", [2, 7], [1, 0, 2.5]),
        (HEADS, "dropout", [0.0, 0.99], [-0.01, 1.0]),
        (COUPLING, "depth", [1, 5], [0, -1]),
        (COUPLING, "hidden_layers", [0, 2], [-1]),
        (COUPLING, "scale_bound", [1e-3], [0, -1.0]),
        ([*COUPLING, heads.FFJORD, heads.ResidualMLP], "hidden", [1, 9], [0]),
        ([*COUPLING, heads.ResidualMLP], "conditioner_dropout", [0.0, 0.99], [-0.01, 1.0]),
        ([heads.ResidualMLP], "blocks", [1, 4], [0]),
        ([heads.FFJORD], "steps", [1], [0]),
        ([heads.FFJORD], "max_steps", [1], [0]),
        ([heads.FFJORD], "tolerance", [1e-9], [0, -1e-3]),
        ([heads.FFJORD], "scale_bound", [1e-3], [0, -1.0]),
    ],
)
def test_limits_of_an_argument(kinds, name, taken, refused):
    for kind in kinds:
        for value in taken:
            head = kind(**{"dim": 4, name: value})
            assert getattr(head, name) == value == head.get_config()[name]
        for value in refused:
            with pytest.raises(ValueError, match=f"^`{name}` must be .*received {value}"):
                kind(**{"dim": 4, name: value})

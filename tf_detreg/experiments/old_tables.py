"""Tables of version 0.1, whose recipes had other names: `kind`, `rates`, `batch`."""

import copy
from typing import Any


def is_old(recipe: dict[str, Any]) -> bool:
    """Return whether a row's recipe was written by version 0.1."""
    return "rates" in recipe


def upgrade(recipe: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Return an old recipe as entries of a `training.RunConfig`.

    The row's numbers stay what they were: old trials drew their batches from other random streams, and batches of P
    classes with replacement.

    Args:
        recipe: Of a row of an old table.
        base: A candidate of the same study, for what old recipes did not hold: data, frozen backbone, ranks.
    """
    old = _named(copy.deepcopy(recipe))
    optimizer = old["rates"]
    if not base["features"] and base["backbone"]["name"] == "small_cnn":
        # What a run takes for a net from scratch if nothing is said; old trials did not.
        optimizer = {"backbone_rate": 1e-4, "clipnorm": 0, **optimizer}
    rival = old["rival"]
    if old["head"]["name"] in ("Linear", "ResidualMLP"):
        # They accepted a penalty and had none.
        rival = {key: value for key, value in rival.items() if key != "penalty"}
    classes = old["classes"]
    return {
        **base,
        "head": {**old["head"], "dim": old["dim"]},
        "loss": old["loss"],
        "regularizers": old["regularizers"],
        "rival": rival or None,
        "interpolation": {"epsilon": old["interpolation"]} if old["interpolation"] else None,
        "epochs": old["epochs"],
        "classes": classes,
        "images": old["batch"] // classes if classes else old["batch"],
        "optimizer": optimizer,
        "backbone": old["backbone"] or base["backbone"],
    }


def _named(value: Any) -> Any:
    """Return nested values with `kind` called `name`."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {"name" if key == "kind" else key: _named(each) for key, each in value.items()}

"""A study file: what is compared, on which data, with how many seeds and class splits, chosen and tested how."""

import copy
import dataclasses
import hashlib
import itertools
import json
import pathlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

KINDS = ("ablation", "choice")

RECIPE = {
    "dim": 512,
    "head": {"kind": "Linear"},
    "loss": {"kind": "ProxyAnchor"},
    "regularizers": [],
    "rival": {},
    "interpolation": 0.0,
    "epochs": 30,
    "batch": 128,
    "classes": 0,
    "rates": {"head_rate": 1e-3, "proxy_factor": 10.0, "weight_decay": 1e-4},
    "backbone": {},
}

PROTOCOL = {
    "test": 0.5,
    "validation": 1 / 3,
    "splits": [0, 1, 2],
    "seeds": [0, 1, 2],
    "choice_seeds": [0],
    "metric": "recall@1",
    "recall_at": [1, 10, 100],
    "budget": 0,
    "baselines": [],
    "contrasts": [],
    "train_share": 1.0,
    "smoothness": False,
    "health": False,
}


@dataclasses.dataclass(frozen=True)
class Study:
    """A parsed study file.

    Two kinds. An **ablation** trains every candidate on the train classes and measures it on the validation classes,
    over all splits and seeds; no test class is touched. A **choice** picks, within each split and family, the candidate
    that is best on that split's validation classes, trains it again on train and validation classes together, and
    measures it once on the test classes, over all seeds.

    Attributes:
        name: also the name of its results.
        kind: `"ablation"` or `"choice"`.
        title: for reports.
        question: what the study asks, in a sentence or two.
        data: the data's table, see `experiments.data.load`.
        protocol: splits, seeds, shares, metric, budget; `PROTOCOL` holds the defaults.
        families: candidates by family name; each candidate is a whole recipe.
        headline: whether the overview picture shows the study.
        path: the file.
    """

    name: str
    kind: str
    title: str
    question: str
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    families: Mapping[str, tuple[dict, ...]]
    headline: bool
    path: pathlib.Path

    @property
    def baselines(self) -> tuple[str, ...]:
        """The families that the others are compared with."""
        return tuple(self.protocol["baselines"])


def read(path, smoke: bool = False) -> Study:
    """Read and check a study file.

    Args:
        path: a TOML file; `studies/` has examples, `docs/studies.md` explains the keys.
        smoke: apply the file's `[smoke]` table, which shrinks the study to seconds.

    Raises:
        ValueError: for a file that is not there or keys that are unknown or contradict each other.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is not a study file. The repository's are in studies/.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    shrink = content.pop("smoke", {})
    if smoke:
        # Other data altogether, not the study's with some keys changed.
        content = merge(content, shrink) | ({"data": shrink["data"]} if "data" in shrink else {})
    known = {"name", "kind", "title", "question", "headline", "data", "protocol", "recipe", "families"}
    _no_others(content, known, str(path))
    kind = content.get("kind", "ablation")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, received {kind!r} in {path}.")
    _no_others(content.get("protocol", {}), set(PROTOCOL), f"[protocol] of {path}")
    _no_others(content.get("recipe", {}), set(RECIPE), f"[recipe] of {path}")
    protocol = merge(PROTOCOL, content.get("protocol", {}))
    base = merge(RECIPE, content.get("recipe", {}))
    families = {}
    for family, table in content.get("families", {}).items():
        families[family] = tuple(candidates(base, table, protocol["budget"]))
    if not families:
        raise ValueError(f"{path} has no [families.NAME] table: give at least one, with its head.")
    for key in ("baselines", "contrasts"):
        named = protocol[key] if key == "baselines" else [name for pair in protocol[key] for name in pair]
        missing = sorted(set(named) - set(families))
        if missing:
            raise ValueError(f"{key} names {missing}, which are not families of {path}: {sorted(families)}.")
    name = content.get("name", path.stem)
    return Study(
        name=f"{name}-smoke" if smoke else name,
        kind=kind,
        title=content.get("title", name),
        question=" ".join(content.get("question", "").split()),
        data=content.get("data", {"source": "glyphs"}),
        protocol=protocol,
        families=families,
        headline=content.get("headline", True),
        path=path,
    )


def candidates(base: Mapping, family: Mapping, budget: int = 0) -> Iterator[dict]:
    """The recipes of one family: its own settings over the base, times its grid.

    Args:
        base: a whole recipe.
        family: overrides, and perhaps `grid`: dotted names to lists of values, of which every combination is made.
        budget: at most this many combinations, drawn with a fixed seed, so that families with large and small grids
            are tuned equally. 0 (default): all.
    """
    family = dict(family)
    grid = family.pop("grid", {})
    _no_others(family, set(RECIPE), "a family")
    own = merge(base, family)
    combinations = list(itertools.product(*grid.values()))
    if budget and len(combinations) > budget:
        drawn = np.random.default_rng(0).choice(len(combinations), budget, replace=False)
        combinations = [combinations[i] for i in sorted(drawn)]
    for values in combinations:
        recipe = copy.deepcopy(own)
        for name, value in zip(grid, values, strict=True):
            put(recipe, name, value)
        _no_others(recipe, set(RECIPE), "a grid")
        yield recipe


def merge(base: Mapping, over: Mapping) -> dict:
    """`over` on top of `base`, table by table. A table of another `kind` or `name` replaces the base's as a whole."""
    result = copy.deepcopy(dict(base))
    for name, value in over.items():
        old = result.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _another(value, old):
            result[name] = merge(old, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def _another(table: Mapping, old: Mapping) -> bool:
    return any(key in table and table[key] != old.get(key) for key in ("kind", "name"))


def put(recipe: dict, dotted: str, value) -> None:
    """Set `recipe["a"]["b"]` by the name `"a.b"`."""
    *parents, last = dotted.split(".")
    for parent in parents:
        recipe = recipe.setdefault(parent, {})
    recipe[last] = value


def flat(recipe: Mapping, prefix: str = "") -> dict:
    """A nested recipe as one level of dotted names."""
    result = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[prefix + name] = value
    return result


def recipe_hash(content) -> str:
    """Twelve hexadecimal digits that stand for a recipe (or anything of JSON), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _no_others(table: Mapping, known: set, where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"unknown {unknown} in {where}. Known: {sorted(known)}.")

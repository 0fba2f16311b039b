"""A study file: what is compared, on which data, with how many seeds and class splits, chosen and tested how."""

import copy
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_detreg import checks
from tf_detreg.files import existing
from tf_detreg.training import RunConfig

KINDS = ("ablation", "choice", "table")

PROTOCOL = {
    "test": 0.5,
    "validation": 1 / 3,
    "splits": [0, 1, 2],
    "seeds": [0, 1, 2],
    "choice_seeds": [0],
    "metric": "recall@1",
    "budget": 0,
    "baselines": [],
    "contrasts": [],
    "max_classes": 0,
    "train_share": 1.0,
    "train_classes": 0,
    "retrain": True,
    "images_per_class": 0,
    "smoothness": False,
    "directories": False,
}
# What says where and how fast a trial runs and changes none of its numbers; its seed is the trial's.
_NO_PART_OF_A_RECIPE = ("data", "seed", "strategy", "steps_per_execution", "prefetch_to_device")
# Entries that a run has had only since tables were written without them: left out at their defaults.
_ADDED = {"averaging": None, "jit_compile": False}


@dataclasses.dataclass(frozen=True)
class Study:
    """A parsed study file: a base `training.RunConfig`, families of changes to it with their grids, and a protocol.

    Three kinds. An **ablation** trains every candidate on the train classes and measures it on the validation classes,
    over all splits and seeds; no test class is touched. A **choice** picks, within each split and family, the candidate
    that is best on that split's validation classes, trains it again on train and validation classes together, and
    measures it once on the test classes, over all seeds. A **table** trains every candidate on train and validation
    classes together and measures it on the test classes, as papers do; nothing may be chosen by it.

    Attributes:
        name: Also the name of its results.
        kind: `"ablation"`, `"choice"` or `"table"`.
        title: For reports.
        question: What the study asks, in a sentence or two.
        protocol: Splits, seeds, shares, metric, budget; `PROTOCOL` holds the defaults.
        families: Candidates by family name, each the entries of a `RunConfig`.
        papers: Published figures: `candidate`, the label or family that they belong to, `source`, and metrics by name.
        headline: Whether the overview picture shows the study.
        path: The file.
        points: Of a curve: its studies, by the value of `axis`. The curve itself is its first point under another name.
        axis: What the points differ in, such as `train_classes`.
    """

    name: str
    kind: str
    title: str
    question: str
    protocol: Mapping[str, Any]
    families: Mapping[str, tuple[dict[str, Any], ...]]
    papers: tuple[dict[str, Any], ...]
    headline: bool
    path: pathlib.Path
    points: Mapping[Any, "Study"] = dataclasses.field(default_factory=dict)
    axis: str = ""

    @property
    def baselines(self) -> tuple[str, ...]:
        """Return the families that the others are compared with."""
        return tuple(self.protocol["baselines"])

    @property
    def base(self) -> dict[str, Any]:
        """Return the first candidate, which stands for what all share: data, image size, backbone."""
        return next(iter(self.families.values()))[0]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the ranks of the recall."""
        return tuple(self.base["k"])


def read(path: str | os.PathLike[str], smoke: bool = False) -> Study:
    """Read and check a study file.

    Args:
        path: A TOML file; `studies/` has examples, `docs/studies.md` explains the keys.
        smoke: Shrink the study to seconds, see `experiments.smoke`. Default false.

    Raises:
        FileNotFoundError: For a file that is not there.
        ValueError: For keys that are unknown or contradict each other.
    """
    path = pathlib.Path(path)
    content = _content(path)
    study = _study(content, path)
    curve = content.get("curve", {})
    if curve:
        axis, changed = _points(content, curve, path)
        points = {value: dataclasses.replace(_study(c, path), name=f"{study.name}-{value}") for value, c in changed}
        study = dataclasses.replace(next(iter(points.values())), name=study.name, points=points, axis=axis)
    if smoke:
        from tf_detreg.experiments.smoke import shrink

        return shrink(study)
    return study


def _points(
    content: dict[str, Any], curve: dict[str, Any], path: pathlib.Path
) -> tuple[str, list[tuple[str | float, dict[str, Any]]]]:
    """Return what a curve goes over, and for each of its values the content of the file at that point."""
    if len(curve) != 1 or not all(isinstance(values, list) and values for values in curve.values()):
        raise checks.invalid(
            "curve", "have one entry, a name and the list of its values", checks.shown(curve), f"It stands in {path}."
        )
    names, values = next(iter(curve.items()))
    axis, *others = names.split(", ")
    found = []
    for value in values:
        each = [value] if not others else value
        changed = copy.deepcopy(content)
        for name, setting in zip((axis, *others), each, strict=True):
            put(changed.setdefault("protocol" if name in PROTOCOL else "run", {}), name, setting)
        found.append((each[0], changed))
    return axis, found


def _study(content: dict[str, Any], path: pathlib.Path) -> Study:
    """Return the study of a file's content, without its curve."""
    kind = content.get("kind", "ablation")
    if kind not in KINDS:
        raise ValueError(f"`kind` must be {checks.listed(KINDS)}; received {kind!r} in {path}.")
    _no_others(content.get("protocol", {}), set(PROTOCOL), f"[protocol] of {path}")
    protocol = PROTOCOL | content.get("protocol", {})
    base = RunConfig.from_dict(content.get("run", {})).to_dict()
    families = {
        family: tuple(candidates(base, table, protocol["budget"]))
        for family, table in content.get("families", {}).items()
    }
    if not families:
        raise ValueError(f"{path} has no [families.NAME] table: give at least one, with its head.")
    for key in ("baselines", "contrasts"):
        named = protocol[key] if key == "baselines" else [name for pair in protocol[key] for name in pair]
        missing = sorted(set(named) - set(families))
        if missing:
            raise ValueError(f"`{key}` names {missing}, which are not families of {path}: {sorted(families)}.")
    name = content.get("name", path.stem)
    return Study(
        name=name,
        kind=kind,
        title=content.get("title", name),
        question=" ".join(content.get("question", "").split()),
        protocol=protocol,
        families=families,
        papers=tuple(content.get("papers", ())),
        headline=content.get("headline", True),
        path=path,
    )


def candidates(base: Mapping[str, Any], family: Mapping[str, Any], budget: int = 0) -> Iterator[dict[str, Any]]:
    """Return the configurations of one family: its entries over the base, times its grid.

    Args:
        base: Entries of a `RunConfig`.
        family: Further ones, and perhaps `grid`: dotted names to lists of values, of which every combination is made.
            Names with a comma between them change together: `"classes, images" = [[32, 4], [64, 2]]`.
        budget: At most this many combinations, drawn with a fixed seed, so that families with large and small grids
            are tuned equally. Default 0: all.

    Yields:
        All entries of a `RunConfig`.

    Raises:
        ValueError: For an entry that `RunConfig` does not have or refuses.
    """
    family = dict(family)
    grid = family.pop("grid", {})
    combined = merge(base, family)
    combinations = list(itertools.product(*grid.values()))
    if budget and len(combinations) > budget:
        drawn = np.random.default_rng(0).choice(len(combinations), budget, replace=False)
        combinations = [combinations[i] for i in sorted(drawn)]
    for values in combinations:
        recipe = copy.deepcopy(combined)
        for names, value in zip(grid, values, strict=True):
            joined = names.split(", ")
            for name, each in zip(joined, value if len(joined) > 1 else [value], strict=True):
                put(recipe, name, each)
        yield RunConfig.from_dict(recipe).to_dict()


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` on top of `base`, table by table.

    A table of another `name` replaces the base's as a whole; a head's `dim` stays all the same, unless it is given.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = result.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            result[key] = merge(old, value)
        else:
            result[key] = copy.deepcopy(value)
            if key == "head" and isinstance(old, Mapping) and "dim" in old:
                result[key] = {"dim": old["dim"]} | ({"name": value} if isinstance(value, str) else result[key])
    return result


def put(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `recipe["a"]["b"]` by the name `"a.b"`."""
    *parents, last = dotted.split(".")
    for parent in parents:
        if isinstance(recipe.get(parent), str):
            recipe[parent] = {"name": recipe[parent]}
        if not isinstance(recipe.get(parent), dict):
            recipe[parent] = {}
        recipe = recipe[parent]
    recipe[last] = copy.deepcopy(value)


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested entries as one level of dotted names."""
    result = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        elif value is not None:
            result[prefix + name] = value
    return result


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration makes a recipe: all but data, seed, and where and how fast it runs."""
    return {
        key: value
        for key, value in config.items()
        if key not in _NO_PART_OF_A_RECIPE and not (key in _ADDED and value == _ADDED[key])
    }


def signature(config: Mapping[str, Any]) -> str:
    """Return a text that two configurations of the same recipe share, whatever the order of their keys."""
    return json.dumps(recipe_of(config), sort_keys=True)


def digest(content: Any) -> str:
    """Return twelve hexadecimal digits that stand for anything of JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _content(path: pathlib.Path) -> dict[str, Any]:
    existing(path, "path", "Give a study file; the repository's are in studies/.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    if "recipe" in content or "source" in content.get("data", {}):
        raise ValueError(
            f"{path} is a study of version 0.1: its [data] and [recipe] are one table [run] now, the entries of a "
            "training.RunConfig, and --smoke needs no table. docs/studies.md shows both forms side by side."
        )
    known = {"name", "kind", "title", "question", "headline", "run", "protocol", "families", "papers", "curve"}
    _no_others(content, known, str(path))
    return content


def _no_others(table: Mapping[str, Any], known: set[Any], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"unknown {unknown} in {where}. Known: {sorted(known)}.")

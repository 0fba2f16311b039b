"""Recipes: training runs of papers and of our own, as readable TOML files with their sources.

Each file states what it follows, where it differs and why, and is otherwise a `training.RunConfig`.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_detreg.training.config import RunConfig

_FOLDER = pathlib.Path(__file__).parent
_BENCHMARKS = ("cub", "cars", "sop", "in_shop")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe.

    Args:
        name: Under which it is loaded.
        title: What it trains, in a line.
        source: Where its numbers come from.
        differences: What differs from the source, and why; empty if nothing does.
        config: The run.
        cost: What it takes, in a sentence; empty where that has not been measured.
    """

    name: str
    title: str
    source: str
    differences: str
    config: RunConfig
    cost: str = ""


def names() -> list[str]:
    """Return all recipes.

    Example:
        >>> "cub-proxy-anchor" in names()
        True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def titles() -> dict[str, str]:
    """Name → what each recipe trains, in a line. Loads neither Keras nor TensorFlow.

    Example:
        >>> titles()["cub-proxy-anchor"] == describe("cub-proxy-anchor").title
        True
    """
    return {name: _read(name)["recipe"]["title"] for name in names()}


def load(name: str, data: str | None = None) -> RunConfig:
    """Return the run of a recipe.

    Args:
        name: One of `names()`.
        data: Other data than the recipe says, as `with_data` takes it.

    Raises:
        ValueError: If there is no such recipe.

    Example:
        >>> config = load("cub-proxy-anchor", data="CUB_200_2011")
        >>> config.data["path"], config.loss["name"], config.optimizer["proxy_factor"]
        ('CUB_200_2011', 'ProxyAnchor', 100)
    """
    config = describe(name).config
    return config if data is None else with_data(config, data)


def with_data(config: RunConfig, data: str) -> RunConfig:
    """Return a run on other data.

    Args:
        config: The run.
        data: `LOADER:WHERE` for a loader of `tf_detreg.datasets` and its folder or file, or `tfds:NAME` for a data set
            of TensorFlow Datasets; the folder alone, where the run reads a benchmark that lies in one; else whatever
            `RunConfig.data` may be.

    Example:
        >>> config = describe("cars-proxy-anchor").config
        >>> with_data(config, "cars/").data, with_data(config, "tfds:cars196").data
        ({'name': 'cars', 'path': 'cars/'}, {'name': 'tfds', 'dataset': 'cars196'})
    """
    loader, _, where = data.partition(":")
    if where and loader in (*_BENCHMARKS, "folder", "csv", "tfds"):
        kept = config.data if loader == config.data["name"] else {}
        return config.replace(data={**kept, "name": loader, "dataset" if loader == "tfds" else "path": where})
    if config.data["name"] in _BENCHMARKS:
        return config.replace(data={**config.data, "path": data})
    return config.replace(data={"name": data})


def describe(name: str) -> Recipe:
    """Return a recipe with its title and source."""
    from tf_detreg.training.config import RunConfig

    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no recipe {name!r}. {hint}There are: {', '.join(names())}.")
    values = _read(name)
    about = values.pop("recipe")
    words = about["title"], about["source"], about.get("differences", "")
    return Recipe(name, *words, RunConfig.from_dict(values), about.get("cost", ""))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))

"""A run whose images lie somewhere else by now."""

from typing import Any

from tf_detreg.training.config import RunConfig, differences

# What says where the images are; the other entries of `data` say what is made of them.
_WHERE = ("name", "path", "root", "directory", "data_dir")


def moved(config: RunConfig, data: str) -> RunConfig:
    """Return the configuration with its images at another address.

    Args:
        config: Of the run. Entries of `data` that say how the images are read and split are kept.
        data: A folder or .csv file, or `LOADER:WHERE`.

    Raises:
        ValueError: If `data` is empty.

    Example:
        >>> config = RunConfig(data={"name": "photos", "test": 0.5})
        >>> moved(config, "/backup/photos").data
        {'name': '/backup/photos', 'test': 0.5}
        >>> moved(RunConfig(data={"name": "cub", "path": "CUB"}), "/backup/CUB").data
        {'name': 'cub', 'path': '/backup/CUB'}
    """
    from tf_detreg.datasets import LOADERS

    if not data:
        raise ValueError("`data` must say where the images are; received an empty text.")
    entries = dict(config.data)
    loader, colon, where = data.partition(":")
    if colon and loader in LOADERS:
        key = {"tfds": "dataset"}.get(loader, "path")
        kept = entries if loader == entries["name"] else {k: v for k, v in entries.items() if k not in _WHERE}
        return config.replace(data={**kept, "name": loader, key: where})
    if entries["name"] == "tfds":
        entries.pop("data_dir", None)  # as version 0.1 wrote it
        return config.replace(data={**entries, "directory": data})
    if data not in LOADERS and ("path" in entries or entries["name"] in LOADERS):
        return config.replace(data={**entries, "path": data})
    return config.replace(data={**entries, "name": data})


def check_same_data(facts: dict[str, Any], found: dict[str, Any], data: dict[str, Any], directory: object) -> None:
    """Make sure that moved images are those that a run was trained on.

    Args:
        facts: `data` of the run's `config.json`: sizes and fingerprints.
        found: The same of the images as they are now.
        data: The configuration's entry, for the message.
        directory: Of the run, for the message.

    Raises:
        ValueError: If they differ, with what differs.
    """
    lines = differences(facts, found, "data: ")
    if lines:
        where = data.get("path", data["name"])
        raise ValueError(
            f"`data` must be where the run's images are; received {where!r}, which holds other images than those of "
            f"the run {str(directory)!r}:\n  "
            + "\n  ".join(lines)
            + "\nGive the address that the run's own images have now."
        )

"""From a run to what answers requests."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tf_detreg import training
from tf_detreg.datasets import Splits
from tf_detreg.datasets.held_back import held_back
from tf_detreg.export.cards import run_results
from tf_detreg.export.releasing import Release, release


def export_run(
    run: training.Run,
    directory: str | os.PathLike[str],
    splits: Splits | None = None,
    *,
    name: str | None = None,
    formats: Sequence[str] | None = None,
    check: bool = True,
    card: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Release:
    """Write the files of a run's embedder, checked on its test images, with a model card of what was measured.

    Args:
        run: Of `training.train` or `training.load_run`.
        directory: Folder of all models; the new version goes into `directory/name`.
        splits: The run's data, if loaded already. Default: they are loaded.
        name: The model's name. Default: that of the run's directory.
        formats: Of `export.release`. Default: all that are within their limits.
        check: Whether to run each file and compare it with Keras before anything is published. Default true.
        card: Arguments of `export.model_card` that replace what the run says. Default: none.
        progress: Whether to show a progress bar. Default None: in a terminal.

    Returns:
        A `Release`.

    Raises:
        ValueError: As `export.release` does, or where `check` has no images to compare on.
        OSError: If the disk is full or not writable.
    """
    splits = run.splits() if splits is None else splits
    name = name or run.directory.resolve().name
    known = {"name": name, "data": _data_of(splits), "recipe": run.config.to_dict(), **run_results(run.directory)}
    return release(
        run.embedder,
        pathlib.Path(directory) / name,
        held_back(splits) if check else None,
        formats=formats,
        calibration=splits.train,
        check=check,
        class_names=splits.train.class_names,
        card=known | dict(card or {}),
        progress=progress,
    )


def _data_of(splits: Splits) -> str:
    """Return a sentence for the model card: what was trained on, and what was held back."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    counts = [
        f"{len(part):,} images of {part.num_classes:,} classes for {name}" for name, part in parts.items() if len(part)
    ]
    return f"{splits.train.name.removesuffix('/train')}: " + ", ".join(counts) + "."

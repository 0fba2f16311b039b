"""Run a study file from end to end: trials, table, page."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from tf_detreg import checks, deprecated, files
from tf_detreg.experiments import cost, pages, runner, table
from tf_detreg.experiments.smoke import shrink
from tf_detreg.experiments.study import Study, read
from tf_detreg.training import RunConfig


def ablate(
    study_file: str | os.PathLike[str],
    output: str | os.PathLike[str] = "studies/out",
    jobs: int = 1,
    smoke: bool = False,
    log: Callable[[str], None] | None = None,
    *,
    progress: bool | None = None,
    data: str | None = None,
    backbone: str | None = None,
    strategy: str | None = None,
) -> pathlib.Path:
    """Run what is missing of a study, then write its table and its page.

    Args:
        study_file: See `experiments.study.read`.
        output: Folder of the finished trials (`runs/`); the page goes to `NAME/report.html` in it. The table goes to
            `results/NAME.csv` beside the study file, or into `output` for a smoke run, another backbone or another
            loader.
        jobs: Processes, each on one thread. Default 1. 0: this process, on all its devices.
        smoke: Run the study's small version, in seconds. Default false.
        log: Its name in 0.1, with a warning: takes lines of text in place of `progress`. Default: none.
        progress: Whether to show the trials that are done, each with its result, and the time left. Default None: a bar
            in a terminal, lines in a log.
        data: Where the file's data are, or other data than it says: a folder, or `LOADER:WHERE`. Default: the file's.
        backbone: Another backbone than the file says, by name. Default: the file's.
        strategy: `"mirrored"` for all GPUs of this machine; needs `jobs=0`. Default: the file's.

    Returns:
        The page's path.

    Raises:
        ValueError: For a faulty study file, missing data, or a trial that fails.
    """
    if log is not None:
        deprecated.warn("ablate(log=)", "ablate(progress=)")
    jobs = checks.integer("jobs", jobs)
    if strategy and jobs:
        raise checks.invalid("jobs", "be 0 with `strategy`, whose devices one process holds", f"{jobs}")
    study = read(study_file)
    loader = study.base["data"]["name"]
    study = adapt(study, data, backbone, strategy)
    others = bool(backbone) or study.base["data"]["name"] != loader  # whose results are not those of the file
    if smoke:
        study = shrink(study, keep_data=data is not None)
    output = pathlib.Path(output)
    rows = [
        row for part in study.points.values() or [study] for row in runner.run(part, output, jobs, progress, log=log)
    ]
    results = output / "results" if smoke or others else study.path.parent / "results"
    table.write(table.tidy(rows), results / f"{study.name}.csv")
    rows = table.read(results / f"{study.name}.csv", study)
    return files.write_text(output / study.name / "report.html", pages.study_page(study, rows))


def estimate(
    study_file: str | os.PathLike[str], images_per_second: float = cost.IMAGES_PER_SECOND, **changes: str | None
) -> cost.Cost:
    """Estimate what a study costs, from its trials, its epochs and the images of its data.

    Args:
        study_file: See `experiments.study.read`.
        images_per_second: Of training, on one device. Default: what `experiments.cost` states.
        **changes: `data` and `backbone`, as for `ablate`.

    Raises:
        ValueError: As `ablate` does.
    """
    return cost.estimate(adapt(read(study_file), **changes), images_per_second)


def adapt(study: Study, data: str | None = None, backbone: str | None = None, strategy: str | None = None) -> Study:
    """Return a study on other data, with another backbone, or on other devices; see `ablate`."""
    from tf_detreg.training.moved_data import moved

    def change(recipe: dict[str, Any]) -> dict[str, Any]:
        config = RunConfig.from_dict(recipe)
        if data is not None:
            config = moved(config, data)
        if backbone is not None:
            kept = {key: config.backbone[key] for key in ("weights", "freeze_batch_norm") if key in config.backbone}
            config = config.replace(backbone={**kept, "name": backbone})
        return (config if strategy is None else config.replace(strategy=strategy)).to_dict()

    families = {family: tuple(map(change, recipes)) for family, recipes in study.families.items()}
    points = {value: adapt(point, data, backbone, strategy) for value, point in study.points.items()}
    suffix = "" if backbone is None else "-" + backbone.replace(":", "-").replace("/", "-")
    return dataclasses.replace(study, name=study.name + suffix, families=families, points=points)

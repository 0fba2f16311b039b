"""Run a study file from end to end: trials, table, page."""

import os
import pathlib
from collections.abc import Callable

from tf_detreg import files
from tf_detreg.experiments import pages, runner, table
from tf_detreg.experiments.study import read


def ablate(
    study_file: str | os.PathLike,
    output: str | os.PathLike = "studies/out",
    jobs: int = 1,
    smoke: bool = False,
    log: Callable[[str], None] = print,
) -> pathlib.Path:
    """Run what is missing of a study, then write its table and its page.

    Args:
        study_file: see `experiments.study.read`.
        output: folder of the finished trials (`runs/`); the page goes to `NAME/report.html` in it. The table goes to
            `results/NAME.csv` beside the study file, or into `output` for a smoke run.
        jobs: processes, each on one thread. Default 1. 0: this process.
        smoke: run the study's small version, in seconds.
        log: takes lines of progress.

    Returns:
        The page's path.

    Raises:
        ValueError: for a faulty study file, missing data, or a trial that fails.
    """
    study = read(study_file, smoke)
    output = pathlib.Path(output)
    rows = runner.run(study, output, jobs, log)
    results = output / "results" if smoke else study.path.parent / "results"
    table.write(table.tidy(rows), results / f"{study.name}.csv")
    rows = table.read(results / f"{study.name}.csv")
    return files.write_text(output / study.name / "report.html", pages.study_page(study, rows))

"""`ablate`, `tune`, `report`: studies from files."""

import pathlib
from typing import Annotated, Literal

import typer

from tf_detreg.cli.app import command

Study = Annotated[pathlib.Path, typer.Argument(help="A study file: see `studies/` and docs/studies.md.")]
Trials = Annotated[
    pathlib.Path, typer.Option("--output", help="The folder of finished trials; they are not run again.")
]
Jobs = Annotated[int, typer.Option(help="Processes, each on one thread; 0: this one, on all its devices.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The small version, in half a minute or so.")]


@command
def ablate(
    study: Study,
    output: Trials = pathlib.Path("studies/out"),
    jobs: Jobs = 1,
    smoke: Smoke = False,
    data: Annotated[
        str | None, typer.Option(help="Other data than the study's: a folder, or `LOADER:WHERE` as for `train`.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Another backbone than the study's, such as `ResNet50`.")] = None,
    strategy: Annotated[
        Literal["mirrored"] | None, typer.Option(help="All GPUs of this machine for each trial; with `--jobs 0`.")
    ] = None,
    estimate: Annotated[
        float | None,
        typer.Option(help="Run nothing: say how many hours it takes at so many training images a second."),
    ] = None,
) -> None:
    """Run what is missing of a study: choose on validation classes, look at the test classes once, compare in pairs."""
    from tf_detreg import experiments

    if estimate is not None:
        typer.echo(experiments.estimate(study, estimate, data=data, backbone=backbone))
        return
    page = experiments.ablate(study, output, jobs, smoke, data=data, backbone=backbone, strategy=strategy)
    typer.echo(f"Page        {page}")


@command
def tune(
    study: Study,
    family: Annotated[str, typer.Argument(help="The family of recipes whose settings are searched.")],
    trials: Annotated[int, typer.Option(help="Proposals in this call.")] = 20,
    output: Trials = pathlib.Path("studies/out"),
    jobs: Jobs = 1,
    smoke: Smoke = False,
) -> None:
    """Search a family's settings on the validation classes with Optuna; a search continues where it stopped."""
    from tf_detreg import experiments

    best = experiments.tune(study, family, trials=trials, output=output, jobs=jobs, smoke=smoke)
    typer.echo(f"Best of {best['trials']} trials: {best['value']:.4f} with {best['recipe']}")


@command
def report(
    studies: Annotated[pathlib.Path, typer.Option(help="The folder of study files and their results.")] = pathlib.Path(
        "studies"
    ),
    output: Annotated[pathlib.Path, typer.Option(help="The page to write.")] = pathlib.Path("docs/results.md"),
    picture: Annotated[
        pathlib.Path | None, typer.Option(help="Where the differences on test classes are drawn, as SVG.")
    ] = None,
) -> None:
    """Compose the page of results from what has been run, and name what has not."""
    from tf_detreg import experiments

    typer.echo(f"Page        {experiments.report(studies, output, picture)}")

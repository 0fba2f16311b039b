"""`ablate`, `tune`, `report`: studies from files."""

import pathlib
from typing import Annotated, Literal

import typer

from tf_detreg.cli.app import command

Study = Annotated[
    pathlib.Path,
    typer.Argument(help="A study: a .toml file of configurations to compare, as in `studies/` (docs/studies.md)."),
]
Trials = Annotated[
    pathlib.Path, typer.Option("--output", help="The folder for results; what is finished there is not run again.")
]
Jobs = Annotated[
    int, typer.Option(min=0, help="Trainings at a time, each on one processor core; 0: one, on all cores or GPUs.")
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Only try it: small networks on embedded data, half a minute.")]


@command
def ablate(
    study: Study,
    output: Trials = pathlib.Path("studies/out"),
    jobs: Jobs = 1,
    smoke: Smoke = False,
    data: Annotated[
        str | None, typer.Option(help="The folder of the study's data; or other data, such as `folder:PHOTOS/`.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Another backbone than the study names, such as `ResNet50`.")
    ] = None,
    strategy: Annotated[
        Literal["mirrored"] | None,
        typer.Option(help="Use all GPUs of this machine for each training; with `--jobs 0`."),
    ] = None,
    estimate: Annotated[
        float | None,
        typer.Option(help="Train nothing: say how many hours it would take at so many training images a second."),
    ] = None,
) -> None:
    """Run a study: train several configurations, and compare them fairly.

    A study is a .toml file that says which configurations are compared, on which data, and with how many seeds and
    divisions into classes. Settings are chosen on validation classes; the test classes are used once. A study that was
    stopped goes on where it was.
    """
    from tf_detreg import experiments

    if estimate is not None:
        typer.echo(experiments.estimate(study, estimate, data=data, backbone=backbone))
        return
    page = experiments.ablate(study, output, jobs, smoke, data=data, backbone=backbone, strategy=strategy)
    typer.echo(f"Page        {page}")


@command
def tune(
    study: Study,
    family: Annotated[str, typer.Argument(help="Which of the study's families (named configurations) to tune.")],
    trials: Annotated[int, typer.Option(min=1, help="Trainings in this call.")] = 20,
    output: Trials = pathlib.Path("studies/out"),
    jobs: Jobs = 1,
    smoke: Smoke = False,
) -> None:
    """Search for the best settings of one family of a study with Optuna, on validation classes.

    The same command again goes on with the search.
    """
    from tf_detreg import experiments

    best = experiments.tune(study, family, trials=trials, output=output, jobs=jobs, smoke=smoke)
    typer.echo(f"Best of {best['trials']} trials: {best['value']:.4f} with {best['recipe']}")


@command
def report(
    studies: Annotated[pathlib.Path, typer.Option(help="The folder of studies and their results.")] = pathlib.Path(
        "studies"
    ),
    output: Annotated[pathlib.Path, typer.Option(help="The page to write.")] = pathlib.Path("docs/results.md"),
    picture: Annotated[
        pathlib.Path | None, typer.Option(help="Also draw the differences on test classes, as SVG, here.")
    ] = None,
) -> None:
    """Write the page of results of all studies in a folder, and name those that were not run."""
    from tf_detreg import experiments

    typer.echo(f"Page        {experiments.report(studies, output, picture)}")

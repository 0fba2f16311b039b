"""`evaluate`, `analyze`: what a run is worth, and how steep its map is."""

from typing import Annotated

import typer

from tf_detreg.cli.app import Data, Run, command


@command
def evaluate(
    run: Run,
    engine: Annotated[
        str,
        typer.Option(
            help="How to search: `exact`, or `scann` or `usearch`, which are faster and say how much they miss."
        ),
    ] = "auto",
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Also cluster by k-means, and print NMI, AMI and F1.")
    ] = False,
    page: Annotated[bool, typer.Option(help="Write report.html into the run.")] = True,
    cross_group: Annotated[
        bool,
        typer.Option(
            "--cross-group",
            help="Do not count images of the query's class that are of its group too (camera, style: a column `group` "
            "of the .csv file). No report.html.",
        ),
    ] = False,
    data: Data = None,
    open_set: Annotated[
        bool,
        typer.Option(
            "--open-set",
            help="Also measure how well the score tells that a query's class is not in the gallery.",
        ),
    ] = False,
) -> None:
    """Measure how well a run finds images of its test classes, and write `report.html`.

    Each test image is searched for among the others. R@k is the share of them with an image of their class among the k
    nearest; MAP@R says how well all images of their class are ranked. Intervals say how far another choice of classes
    would move a number. The numbers are printed and kept in the run's `evaluate.json`, those with `--cross-group` in
    `evaluate-cross-group.json`; `evaluation.json` stays what training left.
    """
    import rich

    from tf_detreg import training
    from tf_detreg.analysis.runs import evaluate_run, write_report
    from tf_detreg.calibrating import open_set_run
    from tf_detreg.datasets.held_back import held_back
    from tf_detreg.files import write_json, write_text

    done = training.load_run(run, data)
    splits = done.splits()
    found = evaluate_run(done, splits, engine=engine, clusters=clusters, cross_group=cross_group)
    rich.print(found.report.to_table())
    typer.echo(found.parts.note())
    name = "evaluate-cross-group.json" if cross_group else "evaluate.json"
    typer.echo(f"Numbers     {write_json(run / name, found.to_dict())}")
    if open_set:
        known = open_set_run(done, held_back(splits), found.embedded[0])
        typer.echo(known.to_markdown())
        typer.echo(f"Open set    {write_text(run / 'open_set.json', known.to_json())}")
    if page and not cross_group:
        path, _ = write_report(done, splits, found.embedded)
        typer.echo(f"Report      {path}    (open it in a browser)")


@command
def analyze(
    run: Run,
    samples: Annotated[int, typer.Option(min=1, help="Images at which it is measured.")] = 64,
    data: Data = None,
    memory: Annotated[
        float, typer.Option(help="Gigabytes of memory for a step, beside the model and half as much for images.")
    ] = 0.6,
) -> None:
    """Measure how smooth a run's model is: how much it enlarges small differences between images (Lipschitz constants).

    For research on determinant regularization; a search does not need it. It prints a table for classes that were
    trained on and others, and writes `lipschitz.json` and `lipschitz.png`: spectral and Frobenius norm of the Jacobian,
    log-determinant, singular values, and ratios of distances after and before the model.

    Each sample costs about 200 forward passes of the backbone: minutes for a small net, with EfficientNet-Lite0 at
    224 px on two cores the better part of an hour for all 64.
    """
    from tf_detreg import training
    from tf_detreg.analysis.runs import analyze_run
    from tf_detreg.files import replacing, write_text

    done = training.load_run(run, data)
    found, unseen = analyze_run(done, samples=samples, memory=memory)
    if not unseen:
        typer.echo("Every test class was trained on: `unseen` below are other images of the classes trained on.")
    typer.echo(found.to_markdown())
    typer.echo(f"Numbers     {write_text(run / 'lipschitz.json', found.to_json())}")
    with replacing(run / "lipschitz.png") as temporary:
        found.plot(temporary)
    typer.echo(f"Picture     {run / 'lipschitz.png'}")

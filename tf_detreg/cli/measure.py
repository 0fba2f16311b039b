"""`evaluate`, `analyze`: what a run is worth, and how steep its map is."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tf_detreg.cli.app import Data, Run, command

if TYPE_CHECKING:
    from tf_detreg.training import Embedded


@command
def evaluate(
    run: Run,
    engine: Annotated[
        Literal["auto", "exact", "scann"], typer.Option(help="How to search; `scann` reports its own error.")
    ] = "auto",
    clusters: Annotated[bool, typer.Option("--clusters", help="Add NMI, AMI and F1 of a k-means clustering.")] = False,
    page: Annotated[bool, typer.Option(help="Write the run's report.html.")] = True,
    cross_group: Annotated[
        bool,
        typer.Option(
            "--cross-group",
            help="Items of the query's class *and* group (camera, style, font) leave the gallery; no report.html.",
        ),
    ] = False,
    data: Data = None,
    open_set: Annotated[
        bool,
        typer.Option(
            "--open-set",
            help="Also hold classes out of the gallery: how well do scores tell that a query's class is not there?",
        ),
    ] = False,
) -> None:
    """Measure a run on its test classes: R@k, MAP@R and more, with intervals over classes.

    The numbers are printed and kept in the run's `evaluate.json`, those with `--cross-group` in
    `evaluate-cross-group.json`; `evaluation.json` stays what training left.
    """
    import rich

    from tf_detreg import retrieval, training
    from tf_detreg.demo import embed_held_back, held_back, write_report
    from tf_detreg.files import write_json
    from tf_detreg.retrieval import inputs
    from tf_detreg.retrieval.trained_classes import by_training, is_trained

    done = training.load_run(run, data)
    splits = done.splits()
    found, *gallery = embed_held_back(done, splits, progress=None)
    there: dict[str, Any] = {"gallery": gallery[0].embeddings, "gallery_labels": gallery[0].labels} if gallery else {}
    if cross_group:
        there |= _groups(splits.train.name, found, *gallery)
    report = retrieval.evaluate(
        found.embeddings,
        found.labels,
        **there,
        k=inputs.ranks_within(done.config.k, len(gallery[0].labels) if gallery else len(found.labels) - 1),
        engine=engine,
        clusters=clusters,
    )
    parts = by_training(
        found.embeddings,
        found.labels,
        is_trained(held_back(splits).class_names, splits.train.class_names),
        **there,
        k=done.config.k,
        engine=engine,
    )
    rich.print(report.to_table())
    typer.echo(parts.note())
    name = "evaluate-cross-group.json" if cross_group else "evaluate.json"
    typer.echo(f"Numbers     {write_json(run / name, report.to_dict() | parts.to_dict())}")
    if open_set:
        from tf_detreg.calibrating import open_set_run
        from tf_detreg.files import write_text

        known = open_set_run(done, held_back(splits), found)
        typer.echo(known.to_markdown())
        typer.echo(f"Open set    {write_text(run / 'open_set.json', known.to_json())}")
    if page and not cross_group:
        path, _ = write_report(done, splits, [found, *gallery])
        typer.echo(f"Report      {path}")


def _groups(name: str, found: "Embedded", gallery: "Embedded | None" = None) -> dict[str, Any]:
    """Return arguments of `retrieval.evaluate` for the protocol cross-group.

    Raises:
        ValueError: If the data set has no groups.
    """
    if found.groups is None or (gallery is not None and gallery.groups is None):
        raise ValueError(
            f"--cross-group: {name.removesuffix('/train')} has no groups. A .csv file gives them in a column `group`."
        )
    return {"groups": found.groups} | ({} if gallery is None else {"gallery_groups": gallery.groups})


@command
def analyze(
    run: Run,
    samples: Annotated[int, typer.Option(min=1, help="Points at which Jacobians are measured.")] = 64,
    data: Data = None,
    memory: Annotated[
        float, typer.Option(help="Gigabytes that a step may take, beside the model and half of that for images.")
    ] = 0.75,
) -> None:
    """Measure how much a run's map stretches, on seen and unseen classes: a table, `lipschitz.json` and a plot.

    Spectral and Frobenius norm, log-determinant, singular values, and the ratio of distances after and before the map.
    Each sample costs about 200 forward passes of the backbone: minutes for a small net, with EfficientNet-Lite0 at
    224 px on two cores the better part of an hour for all 64.
    """
    from tf_detreg import training
    from tf_detreg.analysis import lipschitz
    from tf_detreg.demo import held_back
    from tf_detreg.files import replacing, write_text
    from tf_detreg.retrieval.trained_classes import is_trained

    done = training.load_run(run, data)
    splits = done.splits()
    test = held_back(splits)
    trained = is_trained(test.class_names, splits.train.class_names)
    if not trained.all():
        test = test.subset(~trained[test.labels])
    else:
        typer.echo("Every test class was trained on: `unseen` below are other images of the classes trained on.")
    found = lipschitz.measure(
        done.embedder,
        splits.train,
        unseen=test,
        samples=samples,
        pairs=8 * samples,
        seed=done.config.seed,
        memory=memory,
    )
    typer.echo(found.to_markdown())
    typer.echo(f"Numbers     {write_text(run / 'lipschitz.json', found.to_json())}")
    with replacing(run / "lipschitz.png") as temporary:
        found.plot(temporary)
    typer.echo(f"Picture     {run / 'lipschitz.png'}")

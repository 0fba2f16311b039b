"""`evaluate`, `analyze`: what a run is worth, and how steep its map is."""

from typing import Annotated, Literal

import typer

from tf_detreg.cli.app import Run, app


@app.command()
def evaluate(
    run: Run,
    engine: Annotated[
        Literal["auto", "exact", "scann"], typer.Option(help="How to search; `scann` reports its own error.")
    ] = "auto",
    clusters: Annotated[bool, typer.Option("--clusters", help="Add NMI, AMI and F1 of a k-means clustering.")] = False,
    page: Annotated[bool, typer.Option(help="Write the run's report.html.")] = True,
) -> None:
    """Measure a run on classes that its training never saw: R@k, MAP@R and more, with intervals over classes."""
    import rich

    from tf_detreg import retrieval, training
    from tf_detreg.demo import held_back, write_report

    done = training.load_run(run)
    embedder, splits = done.embedder, done.splits()
    test = held_back(splits)
    found = training.embed(embedder, test, progress=None)
    there = {}
    if getattr(splits, "gallery", None) is not None:
        items = training.embed(embedder, splits.gallery, progress=None)
        there = {"gallery": items.embeddings, "gallery_labels": items.labels}
    size = len(there.get("gallery_labels", found.labels[1:]))
    report = retrieval.evaluate(
        found.embeddings,
        found.labels,
        **there,
        k=[k for k in done.config.k if k <= size] or [1],
        engine=engine,
        clusters=clusters,
    )
    rich.print(report.to_table())
    if page:
        path, _ = write_report(done, test, found)
        typer.echo(f"Report      {path}")


@app.command()
def analyze(
    run: Run,
    samples: Annotated[int, typer.Option(min=1, help="Points at which Jacobians are measured.")] = 64,
) -> None:
    """Measure how much a run's map stretches, on seen and unseen classes: a table, `lipschitz.json` and a plot.

    Spectral and Frobenius norm, log-determinant, singular values, and the ratio of distances after and before the map.
    """
    from tf_detreg import training
    from tf_detreg.analysis import lipschitz
    from tf_detreg.demo import held_back
    from tf_detreg.files import replacing, write_text

    done = training.load_run(run)
    splits = done.splits()
    test = held_back(splits)
    found = lipschitz.measure(
        done.embedder, splits.train, unseen=test, samples=samples, seed=done.config.seed, progress=None
    )
    typer.echo(found.to_markdown())
    typer.echo(f"Numbers     {write_text(run / 'lipschitz.json', found.to_json())}")
    with replacing(run / "lipschitz.png") as temporary:
        found.plot(temporary)
    typer.echo(f"Picture     {run / 'lipschitz.png'}")

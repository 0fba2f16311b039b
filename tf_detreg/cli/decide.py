"""`calibrate`, `monitor`: from which score on a match counts, and whether that still holds."""

import pathlib
from typing import Annotated, Literal

import typer

from tf_detreg.cli.app import Data, Images, Run, app


@app.command()
def calibrate(
    run: Run,
    target: Annotated[
        float,
        typer.Option(
            help="Of queries whose class is not in the catalog, the largest share that may be accepted. It takes "
            "10 / target validation images: 1,000 for 0.01, 100 for 0.1."
        ),
    ] = 0.01,
    score: Annotated[
        Literal["nearest", "margin", "mean"],
        typer.Option(
            help="What is compared with the threshold: the cosine of the nearest item; its lead over the nearest item "
            "of another class; or the mean of the five nearest."
        ),
    ] = "nearest",
    bound: Annotated[
        Literal["upper", "point"],
        typer.Option(
            help="`upper` leaves a margin, so that the target holds for other classes too; `point` leaves none."
        ),
    ] = "upper",
    index: Annotated[
        pathlib.Path | None,
        typer.Option(help="An index of this run's model, or a folder of shards; the threshold is stored in it too."),
    ] = None,
    data: Data = None,
) -> None:
    """Choose the threshold for "no match": the score from which on a match counts.

    It is chosen on the validation classes of a run and checked on its test classes. `decision.json` and
    `reliability.png` are written into the run; `search`, `index` and `export` use the threshold from then on.
    """
    from tf_detreg import retrieval, training
    from tf_detreg.calibrating import calibrate_run
    from tf_detreg.index import Index, sharding

    done = training.load_run(run, data)
    catalog = None if index is None else sharding.load(index)
    if catalog is not None:
        catalog.refuse_other_model(retrieval.fingerprint(done.embedder))  # before anything is embedded or written
    decision = calibrate_run(done, target, score=score, bound=bound)
    if catalog is not None and index is not None:  # before the picture, whose package may be missing
        catalog.decision = decision
        if isinstance(catalog, Index):
            catalog.save(index)  # an index of version 0.1 was read into memory
    typer.echo(decision.to_markdown())
    typer.echo(f"Decision    {run / 'decision.json'}")
    decision.plot_reliability(run / "reliability.png")
    typer.echo(f"Picture     {run / 'reliability.png'}")
    if index is not None:
        typer.echo(f"Index       {index}")


@app.command()
def monitor(
    index: Annotated[
        pathlib.Path, typer.Argument(help="An index, or a folder of shards, with the threshold of `calibrate`.")
    ],
    queries: Images,
    run: Annotated[
        pathlib.Path | None, typer.Option(help="The run whose model made the index. Default: as the index says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the scores of new queries with those of `calibrate`, and say whether to choose the threshold again."""
    from tf_detreg.calibrating import monitor_index

    found = monitor_index(index, queries, run)
    typer.echo(found.to_json().rstrip() if as_json else found.summary())

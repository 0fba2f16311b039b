"""`embed`, `search`: from a run to the nearest images."""

import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tf_detreg.cli.app import Data, Images, Run, command

if TYPE_CHECKING:
    from tf_detreg import training


@command
def embed(
    run: Run,
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, or folders of them; with `--runner`, patterns such as `'PHOTOS/*.jpg'` too."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="The file to write; with `--runner`, a folder. Default: embeddings.npz, or the folder embeddings."
        ),
    ] = None,
    format: Annotated[
        Literal["npz", "parquet", "tfrecord"] | None,
        typer.Option(help="Default: as the ending of `--out` says, else npz; with `--runner`, tfrecord."),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(
            help="For millions of images: embed on Apache Beam (docs/scaling.md). `DirectRunner` is this machine."
        ),
    ] = None,
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="An option of Beam's pipeline, such as `--beam-option=--flink_master=host:8081`; repeat it."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="With `--runner`: number of files to write. Default: 16.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With `--runner`: images that are embedded together. Default: 64.")
    ] = None,
) -> None:
    """Write the embeddings of images to a file that other programs read.

    Files that cannot be read are counted and named. An `.npz` holds `embeddings` (N, dim) and `paths` (N). A `.parquet`
    is a table of `id` (the file), `vector`, `path` and, where folders are classes, `label`; DuckDB, Polars, pandas and
    LanceDB read it, and `Index.from_parquet`.

    With `--runner` the work is spread over the workers of Apache Beam, and goes to shards, TFRecord files or Parquet,
    that `retrieval.bulk_embed.read_embeddings` reads. The same command again goes on where it was stopped.
    """
    from tf_detreg import training
    from tf_detreg.files import check_file
    from tf_detreg.searching import embed_files

    if runner is not None:
        if format == "npz":
            raise ValueError("--format npz is for one file; with --runner, give tfrecord or parquet.")
        asked = {"format": format, "shards": shards, "batch_size": batch_size}
        given = {name: value for name, value in asked.items() if value is not None}
        beams = [f"--runner={runner}", *(beam_option or ())]
        typer.echo(_bulk_embed(training.load_run(run), images, out or "embeddings", beams, given))
        return
    for option, value in (("--beam-option", beam_option), ("--shards", shards), ("--batch-size", batch_size)):
        if value is not None:
            raise ValueError(f"{option} needs --runner, such as --runner DirectRunner.")
    if format == "tfrecord":
        raise ValueError("--format tfrecord is for shards: it needs --runner, such as --runner DirectRunner.")
    format = format or ("parquet" if out is not None and out.endswith(".parquet") else "npz")
    out = out or f"embeddings.{format}"
    check_file(out)
    embedded, total = embed_files(run, images, out, format)
    typer.echo(f"{embedded} of {total} files embedded: {out}")


@command
def search(
    place: Annotated[
        pathlib.Path,
        typer.Argument(
            help="What to search in: an index; a folder that `index shard` made; or a run, whose images are searched."
        ),
    ],
    queries: Images,
    run: Annotated[
        pathlib.Path | None, typer.Option(help="The run whose model made the index. Default: as the index says.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Images to find for each query.")] = 8,
    picture: Annotated[
        pathlib.Path | None, typer.Option(help="The picture to write. Default: neighbors.png; with `--json`, none.")
    ] = None,
    data: Data = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Search only items whose metadata fit, such as 'label = \"mug\" and price < 20'; for an index."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a line of JSON for each query, with ids and metadata; draw only with `--picture`."
        ),
    ] = False,
) -> None:
    """Find the nearest images of each query, print them with their scores, and draw them.

    `tf-detreg search shop.index photo.jpg --where 'label = "mug" and price < 20' --json` prints ids, scores and
    metadata. A filter has `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (…)`, `prefix "…"`, `and`, `or`, `not` and brackets.

    After `tf-detreg calibrate` each match has a probability, and a query whose nearest item is below the threshold has
    `no match`.
    """
    import json

    from tf_detreg.files import check_file
    from tf_detreg.searching import search_index, search_run

    picture = picture or (None if as_json else pathlib.Path("neighbors.png"))
    if picture is not None:
        check_file(picture)
    is_run = (place / "config.json").is_file()
    if data is not None and not is_run:
        raise ValueError(f"--data says where a run's images are, and {str(place)!r} is no run.")
    if where is not None and is_run:
        raise ValueError(f"--where filters the items of an index, and {str(place)!r} is a run.")
    found = search_run(place, queries, k, data) if is_run else search_index(place, run, queries, k, where)
    drawn = None if picture is None else found.save_png(picture)
    if as_json:
        typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in found.rows()))
        return
    typer.echo("\n".join(found.texts()))
    typer.echo(f"Picture     {drawn}")


def _bulk_embed(run: "training.Run", images: list[str], out: str, beams: list[str], options: dict[str, Any]) -> str:
    from tf_detreg.retrieval.bulk_embed import bulk_embed

    if not run.finished:
        raise ValueError(f"The run {run.directory} has not ended: there is no embedder.keras for the workers to read.")
    return bulk_embed(images, run.directory / "embedder.keras", out, options=beams, **options).summary()

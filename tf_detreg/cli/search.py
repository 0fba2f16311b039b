"""`embed`, `index`, `search`: from a run to the nearest images."""

import pathlib
from typing import Annotated

import typer

from tf_detreg.cli.app import Data, Images, Run, command


@command
def embed(
    run: Run,
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them; with --runner, patterns too.")],
    out: Annotated[
        str | None,
        typer.Option(help="The .npz file to write, or with --runner a folder. Default: embeddings.npz, embeddings."),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(help="Embed on Apache Beam, in shards: `DirectRunner` is this machine; see docs/scaling.md."),
    ] = None,
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="For Beam's pipeline, such as `--beam-option=--flink_master=host:8081`; repeat it."),
    ] = None,
) -> None:
    """Embed images into an .npz file: `embeddings` (N, dim) and `paths` (N). Unreadable files are counted and named.

    With `--runner` the work is spread over the workers of Apache Beam, and goes to TFRecord shards that
    `retrieval.bulk_embed.read_embeddings` reads.
    """
    import numpy as np

    from tf_detreg import training
    from tf_detreg.files import check_file, replacing
    from tf_detreg.searching import image_files

    done = training.load_run(run)
    if runner is not None:
        typer.echo(_bulk_embed(done, images, out or "embeddings", [f"--runner={runner}", *(beam_option or ())]))
        return
    if beam_option:
        raise ValueError("--beam-option needs --runner, such as --runner DirectRunner.")
    out = out or "embeddings.npz"
    check_file(out)
    files = image_files(images, done.embedder)
    found = training.embed(done.embedder, files, progress=None)
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, embeddings=found.embeddings, paths=np.asarray(files.paths)[found.indices])
    total = len(files) + len(files.skipped)
    typer.echo(f"{len(found.embeddings)} of {total} files embedded: {out}")


@command
def index(
    run: Run,
    images: Images,
    to: Annotated[pathlib.Path, typer.Option(help="The index's folder.")] = pathlib.Path("index"),
) -> None:
    """Build an index of images that `search` and `serve` read. Unreadable files are counted and named."""
    from tf_detreg.index import Index
    from tf_detreg.searching import index_files

    Index.check_place(to)
    made = index_files(run, images)
    made.save(to)
    typer.echo(f"{len(made)} images indexed: {to}    (next: tf-detreg search {to} QUERY.jpg)")


@command
def search(
    place: Annotated[pathlib.Path, typer.Argument(help="An index, or a run: then its own images are searched.")],
    queries: Images,
    run: Annotated[
        pathlib.Path | None, typer.Option(help="The run whose model made the index. Default: it knows.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each query, as far as there are so many.")] = 8,
    picture: Annotated[pathlib.Path, typer.Option(help="The picture to write.")] = pathlib.Path("neighbours.png"),
    data: Data = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a query; `match` is false where nothing is accepted.")
    ] = False,
) -> None:
    """Find the nearest images of each query, print them with their scores, and draw them.

    With a decision (`tf-detreg calibrate`) each match has a probability, and a query whose class is not in the
    catalogue has `no match`.
    """
    import json

    from tf_detreg.files import check_file
    from tf_detreg.searching import search_index, search_run

    check_file(picture)
    is_run = (place / "config.json").is_file()
    if data is not None and not is_run:
        raise ValueError(f"--data says where a run's images are, and {str(place)!r} is no run.")
    found = search_run(place, queries, k, data) if is_run else search_index(place, run, queries, k)
    drawn = found.save_png(picture)
    if as_json:
        typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in found.rows()))
        return
    typer.echo("\n".join(found.texts()))
    typer.echo(f"Picture     {drawn}")


def _bulk_embed(run, images: list[str], out: str, options: list[str]) -> str:
    from tf_detreg.retrieval.bulk_embed import bulk_embed

    if not run.finished:
        raise ValueError(f"The run {run.directory} has not ended: there is no embedder.keras for the workers to read.")
    return bulk_embed(images, run.directory / "embedder.keras", out, options=options).summary()

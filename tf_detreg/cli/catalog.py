"""`index`: build an index of images, change it, look at it, and hand it on."""

import pathlib
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tf_detreg.cli.app import Command, Run, app, with_tensorflow


class _BuildsByDefault(TyperGroup):
    """`tf-detreg index RUN IMAGES/` builds, as `tf-detreg index build RUN IMAGES/` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` in front of arguments that begin with no command."""
        # The type of `ctx` is click's in older releases of Typer, and of Typer's own copy of click in newer ones.
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            # `index search` is meant for `search`, and no run of that name.
            others = () if ctx.parent is None else ctx.parent.command.commands
            if args[0] in others and not pathlib.Path(args[0]).exists():
                ctx.fail(f"There is no `index {args[0]}`; see `tf-detreg {args[0]} --help`.")
            args = ["build", *args]
        return super().parse_args(ctx, args)


index = typer.Typer(cls=_BuildsByDefault, no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(index, name="index")
Place = Annotated[pathlib.Path, typer.Argument(help="An index, as `tf-detreg index RUN IMAGES/ --to INDEX` makes it.")]
Catalog = Annotated[pathlib.Path, typer.Argument(help="An index, or a folder of shards that `index shard` made.")]
Table = Annotated[
    pathlib.Path | None,
    typer.Option("--csv", help="A table with a column `path`, and `id` if you like; other columns become metadata."),
]
Where = Annotated[
    str | None, typer.Option(help="Only items whose metadata fit, such as 'label = \"mug\" and price < 20'.")
]
Maker = Annotated[
    pathlib.Path | None, typer.Option("--run", help="The run whose model made the index. Default: as the index says.")
]


@index.callback()
def _index() -> None:
    """Build an index of images, change it, look at it, and hand it on to other databases.

    **tf-detreg index RUN IMAGES/ --to shop.index** builds one, **tf-detreg search shop.index photo.jpg** searches it.
    Then

    * **index add shop.index NEW/** adds what is new in a folder, **--csv items.csv** prices, labels and other metadata;

    * **index list shop.index --where 'price < 20'** shows what is in it;

    * **index remove shop.index --where 'sold = true'** removes items;

    * **index compact** gives space back, **index compress** memory, **index verify** looks for damage;

    * **index refresh shop.index --run NEW** embeds everything again with a new model;

    * **index shard shop.index --to shards --shards 4** makes several, which **search** and **serve** ask as one;

    * **index export shop.index --to shop.sql** writes it for PostgreSQL, or `.parquet` for anything else.

    A change is seen by servers and searches that have the index open. A command that is killed leaves the index whole.
    """


def _command(function: Command) -> Command:
    """Register a command under its name, without a `_` at its end."""
    index.command(function.__name__.rstrip("_"))(with_tensorflow(function))
    return function


@_command
def build(
    run: Run,
    images: Annotated[list[pathlib.Path] | None, typer.Argument(help="Image files, or folders of them.")] = None,
    to: Annotated[pathlib.Path, typer.Option(help="The folder of the new index.")] = pathlib.Path("index"),
    csv: Table = None,
) -> None:
    """Build an index of images that `search` and `serve` read.

    Files that cannot be read are counted and named. `tf-detreg index RUN IMAGES/ --to shop.index`, without the word
    `build`, does the same. With `--csv items.csv` the files of that table are items too; its columns, such as `price`,
    are what `--where` filters by.
    """
    from tf_detreg.index import Index
    from tf_detreg.indexing import index_files

    Index.check_directory(to)
    made = index_files(run, images or [], csv)
    made.save(to)
    typer.echo(f"{len(made)} images indexed: {to}    (next: tf-detreg search {to} QUERY.jpg)")


@_command
def add(
    place: Catalog,
    images: Annotated[list[pathlib.Path] | None, typer.Argument(help="Image files, or folders of them.")] = None,
    csv: Table = None,
    run: Maker = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Embed files again that are in the index, and replace their metadata.")
    ] = False,
) -> None:
    """Add images to an index, or to a folder of shards; images that are in it already stay as they are.

    About a thousand images are added at a time. Where the command was stopped, the same command again adds the rest.
    """
    from tf_detreg.indexing import add_files

    done = add_files(place, images or [], csv, directory=run, replace=replace)
    others = {"replaced": done.replaced, "there already": done.known, "unreadable": done.unreadable}
    said = "".join(f", {count} {what}" for what, count in others.items() if count)
    typer.echo(f"{done.added} images added{said}: {place}")
    if csv is not None and done.known:
        typer.echo("Metadata of images that were there already stay as they are; --replace takes those of the table.")


@_command
def remove(
    place: Catalog,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of items, as `index list` shows them.")] = None,
    where: Where = None,
) -> None:
    """Remove items by their ids or by a filter, in one step; of a folder of shards, in one step a shard."""
    from tf_detreg.index import sharding
    from tf_detreg.index.items import of_text

    if bool(ids) == bool(where):
        raise ValueError("Say which items: their ids, or --where 'price > 100'.")
    with sharding.load(place) as opened:
        removed = opened.remove(where=where) if where else opened.remove([of_text(id, opened) for id in ids or []])
        typer.echo(f"{removed} items removed, {len(opened)} left: {place}")


@_command
def list_(
    place: Catalog,
    where: Where = None,
    count: Annotated[int, typer.Option("-n", min=0, help="Items to show; 0 shows none.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print all items, a line of JSON each.")] = False,
) -> None:
    """Show what an index, or a folder of shards, holds: its size, its fields, and its first items."""
    import itertools
    import json

    from tf_detreg.index import sharding

    with sharding.load(place) as opened:
        rows = opened.rows(where)
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row))
            return
        kept = opened.count(where)  # a filter that cannot be read is refused before anything is printed
        for name, value in opened.describe().items():
            typer.echo(f"{name:11} {value}")
        if where:
            typer.echo(f"{'filtered':11} {kept:,} items: {where}")
        for row in itertools.islice(rows, count):
            typer.echo(json.dumps(row, ensure_ascii=True))


@_command
def verify(place: Catalog) -> None:
    """Read all of an index, or of a folder of shards, once, and compare it with its checksums."""
    from tf_detreg.index import sharding

    with sharding.load(place) as opened:
        opened.verify(progress=None)
        typer.echo(f"{place} is as it was written: {len(opened):,} items.")


@_command
def compact(place: Place) -> None:
    """Rewrite an index without what was removed, and build its search tree again if it has one."""
    from tf_detreg.index import Index

    with Index.load(place) as opened:
        before = opened.bytes_on_disk()
        opened.compact()
        typer.echo(f"{before / 1e6:,.1f} MB before, {opened.bytes_on_disk() / 1e6:,.1f} MB now: {place}")


@_command
def compress(
    place: Place,
    kind: Annotated[
        Literal["float16", "int8", "binary", "product"],
        typer.Option(help="Bytes for each number of a vector: 2, 1, 1/8, or (by ScaNN) 1/4, in place of 4."),
    ] = "int8",
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Keep so many principal components. Default: all dimensions.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="The largest number of neighbors that you will ask for.")] = 10,
    recall: Annotated[float, typer.Option(help="Share of the true neighbors that must still be found.")] = 0.99,
) -> None:
    """Search in a compressed copy of the vectors: less memory, and a loss that is measured and printed.

    The vectors stay on disk, where the best candidates are scored. A search tree that the index has is replaced.
    """
    from tf_detreg.index import Index

    with Index.load(place) as opened:
        done = opened.compress(kind, dimensions, k=min(k, len(opened)), target=recall)
        whole = 4 * opened.dimension
        typer.echo(
            f"{done.bytes_an_item:g} bytes an item in memory in place of {whole}; {100 * done.recall:.2f} % of the "
            f"true neighbors are found, with {done.rescored} candidates a query read from disk: {place}"
        )


@_command
def refresh(
    place: Place,
    run: Annotated[pathlib.Path, typer.Option("--run", help="The run with the new model.")],
    limit: Annotated[
        float,
        typer.Option(help="Items whose pictures are gone lose some of their neighbors: the largest share allowed."),
    ] = 0.1,
) -> None:
    """Move an index to a new model: embed its images again, then switch in one step.

    Searches go on meanwhile with the old model. New vectors of items whose pictures are gone are computed from their
    old vectors, with a loss that is measured and printed; above `--limit` nothing is changed.
    """
    from tf_detreg.indexing import refresh_index

    done = refresh_index(place, run, limit)
    if done is None:
        typer.echo(f"{place} is of this model already.")
        return
    lost = (
        "" if done.loss is None else f", {done.mapped} mapped, which loses {100 * done.loss:.1f} % of their neighbors"
    )
    typer.echo(f"{done.embedded} images embedded again{lost}: {place}")


@_command
def shard(
    source: Annotated[
        pathlib.Path,
        typer.Argument(
            help="An index, a Parquet file of embeddings, or the folder that `embed --runner … --out` wrote."
        ),
    ],
    to: Annotated[pathlib.Path, typer.Option(help="A new folder for the shards.")],
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Number of shards. Default: one for each file that `embed --runner` wrote."),
    ] = None,
    run: Annotated[
        pathlib.Path | None,
        typer.Option("--run", help="The run whose model made the embeddings. Default: as the source says."),
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="A metadata field that filters will use, to make them fast; repeat it.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="The largest number of neighbors that you will ask for.")] = 10,
) -> None:
    """Make several smaller indexes of one index, or of embeddings in files: for a catalog too large for one machine.

    The id of an item says which shard it goes to. `search`, `serve`, `calibrate`, `monitor` and `index add`, `remove`,
    `list` and `verify` take the folder as one catalog; a single shard in it is an index like any other. The same
    command again goes on where it was stopped.
    """
    from tf_detreg.files import existing
    from tf_detreg.index import Shards, shard_building, splitting

    options: dict[str, Any] = {"k": k, "fields": field or []}
    if run is not None:
        from tf_detreg import retrieval, training

        embedder = training.load_run(run).embedder
        options |= {"fingerprint": retrieval.fingerprint(embedder), "dimension": embedder.output_shape[-1]}
    if shards is not None:
        made = splitting.split(source, to, shards, **options)
    elif source.is_dir() and any(source.glob("embeddings-*-of-*")):
        made = shard_building.build(source, to, **options)
    else:
        existing(source, "source", "Give an index, a Parquet file of embeddings, or a folder of them.")
        raise ValueError("Say how many shards, such as --shards 4.")
    with Shards.load(to) as opened:
        typer.echo(f"{len(opened):,} items in {len(made)} shards: {to}    (next: tf-detreg search {to} QUERY.jpg)")


@_command
def export(
    place: Place,
    to: Annotated[
        str,
        typer.Option(
            help="What to write: a file; for lancedb and qdrant a folder; for a server of qdrant http://HOST:6333."
        ),
    ],
    format: Annotated[
        Literal["parquet", "pgvector", "qdrant", "lancedb"] | None,
        typer.Option(help="Default: by the ending, .parquet or .sql."),
    ] = None,
    table: Annotated[str, typer.Option(help="The name of the table or collection.")] = "items",
    where: Where = None,
) -> None:
    """Write an index for other databases: Parquet, PostgreSQL with pgvector, Qdrant, LanceDB; see docs/databases.md."""
    import os

    from tf_detreg import extras
    from tf_detreg.files import check_file
    from tf_detreg.index import Index

    endings = {".parquet": "parquet", ".sql": "pgvector"}
    format = format or endings.get(pathlib.PurePath(to).suffix)
    if format is None:
        raise ValueError(f"--to {to}: say what to write with --format parquet, pgvector, qdrant or lancedb.")
    if format in endings.values():
        check_file(to)
    with Index.load(place) as opened:
        total = opened.count(where)
        if format == "parquet":
            opened.to_parquet(to, where=where, progress=None)
        elif format == "pgvector":
            opened.to_pgvector(to, table, where=where, progress=None)
        elif format == "lancedb":
            opened.to_lancedb(to, table, where=where)
        else:
            with extras.needed("A collection of Qdrant"):
                from qdrant_client import QdrantClient
            remote = to.startswith(("http://", "https://"))
            client = QdrantClient(url=to, api_key=os.environ.get("QDRANT_API_KEY")) if remote else QdrantClient(path=to)
            opened.to_qdrant(client, table, where=where, progress=None)
            client.close()
    typer.echo(f"{total:,} items written as {format}: {to}")

"""The application itself, and what its commands share: options, progress, tables."""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from tf_detreg.loading import load_tensorflow

Command = TypeVar("Command", bound=Callable[..., None])

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def command(function: Command) -> Command:
    """Register a command that needs TensorFlow, which is loaded when it runs and not for its `--help`."""
    app.command()(with_tensorflow(function))
    return function


def with_tensorflow(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that loads TensorFlow before it runs."""

    @functools.wraps(function)
    def loaded(*arguments: object, **options: object) -> None:
        load_tensorflow()
        function(*arguments, **options)

    return loaded


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from tf_detreg import __version__

        others = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras"))
        typer.echo(f"tf_detreg {__version__}, {others}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Train a model that finds similar images, also of classes that training never saw (deep metric learning in Keras).

    Without photos: **tf-detreg demo**, a few minutes. With PHOTOS/, which holds one folder of images for each class:

    * **tf-detreg train PHOTOS/ --features --run runs/mine** trains, and holds some classes back;

    * **tf-detreg evaluate runs/mine** measures it on those;

    * **tf-detreg export runs/mine --format saved_model**, **tf-detreg index runs/mine PHOTOS/ --to mine.index** and
    **tf-detreg serve saved_models/mine --index mine.index** lead to a search page in the browser.
    """


Run = Annotated[pathlib.Path, typer.Argument(help="A run's directory, as `train` makes it: runs/mine.")]
Images = Annotated[list[pathlib.Path], typer.Argument(help="Image files, or folders of them.")]
Exports = Annotated[pathlib.Path, typer.Option("--to", help="The folder that exports go to.")]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Where the images that the run was trained on are now, if they have moved."),
]
Seed = Annotated[int, typer.Option(help="Random seed of weights, batches and augmentation.")]


def verbose() -> int:
    """Return a bar in a terminal, a line an epoch in a log."""
    return 1 if sys.stdout.isatty() else 2


def print_table(title: str, rows: list[dict[str, object]]) -> None:
    """Print rows as a table, or where the terminal is too narrow for it, as a line for each entry."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    texts = [{key: f"{v:.2f}" if isinstance(v, float) else str(v) for key, v in row.items()} for row in rows]
    table = Table(title=title)
    for place, column in enumerate(texts[0] if texts else []):
        table.add_column(escape(column), justify="left" if place == 0 else "right", no_wrap=True)
    for row in texts:
        table.add_row(*map(escape, row.values()))
    console = Console()
    # What is measured is cut to the console that measures.
    if Console(width=10_000).measure(table).maximum <= console.width:
        console.print(table)
        return
    typer.echo(title)
    for row in texts:
        first, *others = row.items()
        typer.echo("\n".join([f"{first[0]}: {first[1]}", *(f"  {column:12} {value:>7}" for column, value in others)]))

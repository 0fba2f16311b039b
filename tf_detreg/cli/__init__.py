"""The command `tf-detreg`: each command is a few lines around a function of the library."""

import os
import sys

import typer

# Importing a module registers its commands, in the order of `--help`.
from tf_detreg.cli import train  # isort: skip
from tf_detreg.cli import measure  # isort: skip
from tf_detreg.cli import publish  # isort: skip
from tf_detreg.cli import search  # isort: skip
from tf_detreg.cli import studies  # isort: skip
from tf_detreg.cli.app import app

__all__ = ["app", "main", "measure", "publish", "search", "studies", "train"]


def main() -> None:
    """Entry point: what a user can mend is told in a line; anything else keeps its traceback."""
    try:
        app()
    except KeyboardInterrupt:
        typer.secho("Stopped. What was finished is kept; `tf-detreg train --resume` goes on with a run.", err=True)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("TF_DETREG_TRACEBACK"):
            raise
        typer.secho(f"Error: {error}", fg="red", err=True)
        typer.secho("(TF_DETREG_TRACEBACK=1 shows where.)", dim=True, err=True)
        sys.exit(1)

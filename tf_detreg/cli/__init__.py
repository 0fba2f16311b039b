"""The command `tf-detreg`: each command is a few lines around a function of the library."""

import os
import sys
from collections.abc import Sequence

import typer

# Importing a module registers its commands, in the order of `--help`.
from tf_detreg.cli import train  # isort: skip
from tf_detreg.cli import choose  # isort: skip
from tf_detreg.cli import measure  # isort: skip
from tf_detreg.cli import decide  # isort: skip
from tf_detreg.cli import publish  # isort: skip
from tf_detreg.cli import search  # isort: skip
from tf_detreg.cli import catalog  # isort: skip
from tf_detreg.cli import studies  # isort: skip
from tf_detreg.cli import doctor  # isort: skip
from tf_detreg.cli.app import app
from tf_detreg.cli.output import steady_output
from tf_detreg.cli.trouble import explain, show_log
from tf_detreg.loading import load_tensorflow

__all__ = [
    "app",
    "catalog",
    "choose",
    "decide",
    "doctor",
    "load_tensorflow",
    "main",
    "measure",
    "publish",
    "search",
    "studies",
    "train",
]


_STOPPED = 130


def main() -> None:
    """Run the command: what a user can mend is told in a line; anything else keeps its traceback."""
    with steady_output():
        _run()


def _run() -> None:
    try:
        with show_log():
            app()
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as end:
        # Typer turns Ctrl-C into this code, and says nothing.
        if end.code == _STOPPED:
            _stopped()
        raise
    except Exception as error:
        text = explain(error)
        if text is None or os.environ.get("TF_DETREG_TRACEBACK"):
            raise
        typer.secho(f"Error: {text}", fg="red", err=True)
        typer.secho("(TF_DETREG_TRACEBACK=1 shows where.)", dim=True, err=True)
        sys.exit(1)


def _stopped() -> None:
    typer.secho(f"Stopped.{_kept(sys.argv[1:])}", err=True)
    sys.exit(_STOPPED)


def _kept(words: Sequence[str]) -> str:
    """Return what is left of a command that was stopped, and how it goes on."""
    if words[:1] == ["serve"]:
        return ""  # Ctrl-C is how a server is meant to end: nothing was left unfinished
    if words[:1] == ["train"]:
        return " What was finished is kept. `tf-detreg train --resume` goes on with a run."
    again = words[:1] in (["demo"], ["ablate"], ["tune"]) or words[:2] in (["index", "shard"], ["index", "add"])
    return f" What was finished is kept{': the same command goes on' * again}."

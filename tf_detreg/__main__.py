"""The command `tf-detreg`, also as `python -m tf_detreg`."""

import importlib
import sys

from tf_detreg import extras

# What runs without the packages of the command line, but takes no option then.
WITHOUT = ("demo", "doctor")


def main() -> None:
    """Run the command, or say in a line what has to be installed for it."""
    try:
        with extras.needed("The command tf-detreg"):
            from tf_detreg.cli import main as run
    except ModuleNotFoundError as error:
        if len(sys.argv) != 2 or sys.argv[1] not in WITHOUT:
            sys.exit(f"Error: {error} `tf-detreg demo` and `tf-detreg doctor` run without it.")
        run = _alone
    run()


def _alone() -> None:
    from tf_detreg.loading import load_tensorflow

    if sys.argv[1] == "demo":
        load_tensorflow()
    importlib.import_module(f"tf_detreg.{sys.argv[1]}").main()


if __name__ == "__main__":
    main()

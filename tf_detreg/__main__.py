"""The command `tf-detreg`, also as `python -m tf_detreg`."""

import sys

from tf_detreg import extras


def main() -> None:
    """Run the command, or say in a line what has to be installed for it."""
    try:
        with extras.needed("The command tf-detreg"):
            from tf_detreg.cli import main as run
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {error}")
    run()


if __name__ == "__main__":
    main()

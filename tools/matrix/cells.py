"""The sets of versions that the tests are run on."""

import dataclasses
import sys

# What other versions could break, and runs in minutes: the private hooks, the extras, every head and loss, saving,
# ScaNN and the index.
CHOSEN = (
    "tests/test_compat.py",
    "tests/test_extras.py",
    "tests/heads/test_mathematics.py",
    "tests/losses/test_frozen_values.py",
    "tests/export/test_savedmodel.py",
    "tests/retrieval/test_engines.py",
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A set of versions.

    Args:
        title: What it is, for the page.
        constraints: File of versions in the repository; None takes what pip chooses.
        python: Minor versions of Python, the best first. Defaults to the one that runs this.
        extras: What is installed with the package. Defaults to what the command line uses.
        without: Distributions that are removed again.
        options: More options of `pip install`.
    """

    title: str
    constraints: str | None
    python: tuple[str, ...] = (f"{sys.version_info[0]}.{sys.version_info[1]}",)
    extras: str = "all"
    without: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


CELLS = {
    "oldest": Cell("The oldest of everything", "constraints-oldest.txt", ("3.11",)),
    "scann": Cell("TensorFlow 2.20 with ScaNN", "constraints.txt", ("3.11", "3.12", "3.13"), "dev"),
    "without-scann": Cell(
        "The newest release without ScaNN", "constraints-newest.txt", ("3.13", "3.12", "3.11"), without=("scann",)
    ),
    "newest-pinned": Cell("The newest that was run", "constraints-newest.txt", ("3.13", "3.12", "3.11")),
    "newest": Cell("The newest of everything", None, ("3.13", "3.12", "3.11"), options=("--upgrade",)),
    "pre": Cell(
        "The newest of everything, pre-releases too", None, ("3.13", "3.12", "3.11"), options=("--upgrade", "--pre")
    ),
}

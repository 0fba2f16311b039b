"""A progress bar with the time left, on terminals."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def ticker(title: str, total: int, show: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs.

    Args:
        title: What is going on.
        total: How many steps there are.
        show: None, the default, shows the bar when standard error is a terminal.

    Yields:
        A function to call with the number of steps just done.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)

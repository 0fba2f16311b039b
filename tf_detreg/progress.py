"""Progress with the time left: a bar in a terminal, a line now and then in a log."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import rich.progress

EVERY = 10.0  # seconds between two lines in a log


class Tick(Protocol):
    """What counts steps that are done, from any thread."""

    def __call__(self, steps: int, result: str = "") -> None:
        """Count steps, and show a line on what came out of them, if there is one."""


@contextlib.contextmanager
def ticker(title: str, total: int, show: bool | None = None, done: int = 0) -> Iterator[Tick]:
    """Show progress on standard error while the block runs.

    A terminal gets a bar that vanishes at the end. A log gets a line every ten seconds, with the time left, and one at
    the end; work that is done within ten seconds leaves no line. Results are lines that stay, in both. Output that
    cannot be written is no reason to stop the work.

    Args:
        title: What is going on.
        total: How many steps there are. More than these are never shown.
        show: False shows nothing. Default None, which shows progress, as True does.
        done: How many of the steps were done before, as where work goes on that was stopped. Default 0.

    Yields:
        A function to call with the number of steps just done, from any thread, and with a line of text, if there is
        anything to say about them.

    Example:
        >>> with ticker("Embedding", 204, show=False) as tick:
        ...     tick(128)
    """
    if show is False:
        yield lambda steps, result="": None
        return
    bar = _bar() if _is_terminal() else None
    if bar is None:
        lines = _Lines(title, total, done)
        yield lines.advance
        lines.end()
        return
    with bar:
        task, lock = bar.add_task(title, total=total, completed=done), threading.Lock()

        def advance(steps: int, result: str = "") -> None:
            nonlocal done
            with lock:
                done = min(total, done + steps)
                if result:
                    bar.console.print(result, markup=False, highlight=False)
                bar.update(task, completed=done)

        yield advance


def _is_terminal() -> bool:
    # A process that was started without standard error has None there; a closed one raises.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return sys.stderr.isatty()
    return False


def _bar() -> "rich.progress.Progress | None":
    """Return a bar of rich, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


class _Lines:
    """Progress as lines: `Embedding: 512/2,048 (25 %), 1:30 left`."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done, self.lines = title, total, done, 0
        self.before = done
        self.start = self.last = time.monotonic()
        self.lock = threading.Lock()

    def advance(self, steps: int, result: str = "") -> None:
        with self.lock:
            self.done = min(self.total, self.done + steps)
            now = time.monotonic()
            if not result and (now - self.last < EVERY or self.done == self.total):
                return
            self.last, new = now, self.done - self.before
            left = (now - self.start) * (self.total - self.done) / new if new and self.done < self.total else None
            self._say(("" if left is None else f", {_clock(left)} left") + (f": {result}" if result else ""))

    def end(self) -> None:
        """Write the last line, where work took long enough for one."""
        if self.lines or time.monotonic() - self.start >= EVERY:
            self._say(f", {_clock(time.monotonic() - self.start)}")

    def _say(self, what: str) -> None:
        self.lines += 1
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        with contextlib.suppress(AttributeError, ValueError, OSError):
            print(f"{self.title}: {self.done:,}/{self.total:,}{share}{what}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """Return minutes and seconds, or hours, minutes and seconds.

    Example:
        >>> _clock(83), _clock(7325)
        ('1:23', '2:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

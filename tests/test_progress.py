"""Progress: a bar in a terminal, lines in a log, and never a reason to stop."""

import contextlib
import doctest
import io
import sys
import types

import pytest

from tf_detreg import progress


def log(monkeypatch):
    """Standard error as a log, and a clock that the test sets; pytest sets its own anew after each fixture."""
    out, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return out, clock


def test_long_work_leaves_lines_with_the_time_left(monkeypatch):
    out, clock = log(monkeypatch)
    with progress.ticker("Embedding", 204) as tick:
        for _ in range(4):
            clock[0] += 7
            tick(64)
    # After 14 s 128 of 204 are done: 76 × 14 / 128 = 8 s are left. The last batch holds 12, and 204 are shown, not 256.
    assert out.getvalue().splitlines() == ["Embedding: 128/204 (62 %), 0:08 left", "Embedding: 204/204 (100 %), 0:28"]


def test_one_long_step_leaves_its_end_and_short_work_leaves_nothing(monkeypatch):
    out, clock = log(monkeypatch)
    with progress.ticker("Tracing", 1) as tick:
        tick(1)
    assert out.getvalue() == ""
    with progress.ticker("Tracing", 1) as tick:
        clock[0] += 60
        tick(1)
    assert out.getvalue() == "Tracing: 1/1 (100 %), 1:00\n"
    with progress.ticker("Tracing", 1, show=False) as tick:
        clock[0] += 60
        tick(1)
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_a_bar_that_counts_no_further_than_its_end(monkeypatch, rich):
    out, clock = log(monkeypatch)
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress.ticker("Embedding", 204) as tick:
        for _ in range(2):
            clock[0] += 11
            tick(128)
    assert "204/204" in out.getvalue() and "256" not in out.getvalue()
    assert ("━" in out.getvalue()) == rich


@pytest.mark.parametrize("broken", ["none", "closed", "pipe"])
def test_output_that_cannot_be_written_stops_no_work(monkeypatch, broken):
    out, clock = log(monkeypatch)

    def write(_):
        raise BrokenPipeError

    if broken == "none":
        monkeypatch.setattr(sys, "stderr", None)
    elif broken == "closed":
        out.close()
    else:
        monkeypatch.setattr(out, "write", write, raising=False)
    with progress.ticker("Embedding", 4) as tick:
        for step in (2, 2):
            clock[0] += 11
            tick(step)
    assert clock[0] == 22


def test_errors_of_the_work_come_out(monkeypatch):
    log(monkeypatch)
    with pytest.raises(KeyError), progress.ticker("Embedding", 4):
        raise KeyError


def test_examples():
    result = doctest.testmod(progress)
    assert result.attempted and not result.failed


def test_a_bar_counts_from_what_is_done(monkeypatch):
    seen = []

    class Bar(contextlib.nullcontext):
        console = types.SimpleNamespace(print=lambda text, **_: seen.append(text))

        def add_task(self, title, total, completed):
            seen.append(completed)
            return title, total

        def update(self, task, completed):
            seen.append((task, completed))

    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setattr(progress, "_bar", Bar)
    with progress.ticker("Embedding", 10) as tick:
        for steps in (1, 3, 99):
            tick(steps)
    assert seen == [0, *((("Embedding", 10), completed) for completed in (1, 4, 10))]
    seen.clear()
    with progress.ticker("Trials", 5, done=3) as tick:
        tick(1, "R@1 [50]")
    assert seen == [3, "R@1 [50]", (("Trials", 5), 4)]


def test_results_are_lines_and_what_was_done_before_is_not_timed(monkeypatch):
    out, clock = log(monkeypatch)
    with progress.ticker("Trials", 6, done=3) as tick:
        clock[0] += 4
        tick(1, "R@1 50.00")
        clock[0] += 4
        tick(1)
        clock[0] += 4
        tick(1, "R@1 60.00")
    # One trial took 4 s, so that the two that are left take 8; the three before count as done, and not for the time.
    said = ["Trials: 4/6 (66 %), 0:08 left: R@1 50.00", "Trials: 6/6 (100 %): R@1 60.00", "Trials: 6/6 (100 %), 0:12"]
    assert out.getvalue().splitlines() == said

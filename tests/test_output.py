"""What the command writes: where nobody reads it any more, and on narrow terminals."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from tf_detreg import cli
from tf_detreg.cli.app import print_table
from tf_detreg.cli.output import steady_output

ROWS = [{"classes": "test", "R@1": 93.25, "R@10": 99.5, "MAP@R": 71.0}, {"classes": "seen [a]", "R@1": 1.0}]


def test_a_reader_that_has_gone_stops_no_work(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO(writing, "w", closefd=False), encoding="ascii"))
    with steady_output():
        print("λ is read")
        assert os.read(reading, 100) == b"\\u03bb is read\n"
        os.close(reading)
        for _ in range(3):
            print("nobody reads this", flush=True)
        os.write(writing, b"nor what other code writes into the same file")
    os.close(writing)


def test_streams_that_are_no_files_are_left_alone(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with steady_output():
        print("a notebook")
        assert sys.stdout is out
    assert out.getvalue() == "a notebook\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no file numbers are closed before a start there")
@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_streams_that_were_closed_from_the_start(tmp_path, closed):
    code = "import os, sys; from tf_detreg.cli.output import steady_output\n"
    code += "with steady_output():\n print('out'); print('err', file=sys.stderr); file = open(sys.argv[1], 'w')\n"
    code += " assert file.fileno() > 2; os.write(1, b'log'); os.write(2, b'log'); file.write('whole'); file.close()\n"
    (tmp_path / "tf-detreg").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "tf-detreg", tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(cli.__path__[0]))},
        stderr=None if 2 in closed else subprocess.PIPE,
        stdout=None if 1 in closed else subprocess.PIPE,
        preexec_fn=lambda: [os.close(number) for number in closed],
    )
    assert done.returncode == 0
    assert (tmp_path / "data").read_text() == "whole"


@pytest.mark.parametrize("width", [40, 20])
def test_a_table_too_wide_for_the_terminal_becomes_lines(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_table("Retrieval", [{f"{name}{n}": value for name, value in ROWS[0].items() for n in range(4)}])
    text = out.getvalue()
    assert "R@10" in text and "93.25" in text and "71.00" in text and "…" not in text


def test_a_table_that_fits_is_a_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_table("Retrieval", [ROWS[0]] * 2)
    assert out.getvalue().count("93.25") == 2 and "│" in out.getvalue()

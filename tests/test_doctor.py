"""`tf-detreg doctor`: what it prints, and which problems it knows."""

import doctest
import sys

import pytest
from typer.testing import CliRunner

from tf_detreg import cli, doctor

GOOD = {"tensorflow": "2.20.0", "tf-keras": "2.20.1", "scann": "1.4.2", "keras": "3.15.0"}


def test_it_prints_what_a_bug_report_should_contain():
    said = CliRunner().invoke(cli.app, ["doctor"], catch_exceptions=False).output
    for text in ("tf_detreg 0.", "Python 3.", "tensorflow  ", "keras  ", "scann  ", "Caches ", "GPUs ", "oblem"):
        assert text in said


def test_a_tensorflow_that_does_not_start_is_part_of_the_answer(monkeypatch):
    def broken():
        raise ImportError("undefined symbol")

    monkeypatch.setattr(doctor, "load_tensorflow", broken)
    result = CliRunner().invoke(cli.app, ["doctor"], catch_exceptions=False)
    assert result.exit_code == 0 and "GPUs        unknown: undefined symbol" in result.output


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"keras": None}, "keras is missing"),
        ({"tensorflow-cpu": "2.20.0"}, "share their files"),
        ({"tensorflow-addons": "0.23.0"}, "retired"),
        ({"tensorflow": "2.21.0", "tf-keras": "2.21.0"}, "scann's TensorFlow operations need"),
        ({"tf-keras": "2.21.0"}, "another TensorFlow"),
    ],
)
def test_each_known_problem_is_named_with_what_to_install(change, what):
    assert doctor.problems(GOOD) == []
    (problem,) = doctor.problems({**GOOD, **change})
    assert what in problem.what and "pip" in problem.remedy


def test_examples():
    result = doctest.testmod(sys.modules[doctor.__name__])
    assert result.attempted and not result.failed

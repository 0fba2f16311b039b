"""How the command ends: what is told in a line, what keeps its traceback, and with which code."""

import sys
import types

import pytest

from tf_detreg import cli, export, training
from tf_detreg.cli import publish


@pytest.fixture
def ended(monkeypatch, capsys):
    """Run the command while the application raises an error; return the code and what standard error said."""

    def run(error, *words):
        def raises():
            raise error

        monkeypatch.setattr(cli, "app", raises)
        monkeypatch.setattr(sys, "argv", ["tf-detreg", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    monkeypatch.delenv("TF_DETREG_TRACEBACK", raising=False)
    return run


def test_what_a_user_can_mend_is_told_in_a_line_unless_the_traceback_is_asked_for(ended, monkeypatch):
    code, said = ended(ValueError("epochs must be 1 or more."))
    assert code == 1 and said == "Error: epochs must be 1 or more.\n(TF_DETREG_TRACEBACK=1 shows where.)\n"
    with pytest.raises(KeyError, match="ours"):
        ended(KeyError("ours"))
    monkeypatch.setenv("TF_DETREG_TRACEBACK", "1")
    with pytest.raises(ValueError, match="epochs must be 1 or more"):
        ended(ValueError("epochs must be 1 or more."))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(130)])
def test_what_is_kept_of_a_stopped_command_is_told(error, ended):
    assert ended(error, "serve", "a") == (130, "Stopped.\n")
    code, said = ended(error, "train", "a")
    assert code == 130 and "`tf-detreg train --resume` goes on with a run." in said
    assert ended(SystemExit(2), "train") == (2, "")


@pytest.mark.parametrize("passed", [True, False])
def test_an_export_says_what_was_left_out_and_how_to_go_on(passed, monkeypatch, capsys, tmp_path):
    verification = types.SimpleNamespace(to_table=lambda: "The table.", passed=passed, reasons=lambda: "a.tflite: x")
    paths = {"saved_model": tmp_path / "bird" / "1"} if passed else {"int8": tmp_path / "lite-1" / "a.tflite"}
    released = types.SimpleNamespace(verification=verification, paths=paths, card=tmp_path / "card")
    monkeypatch.setattr(training, "load_run", lambda *given: None)
    monkeypatch.setattr(export, "export_run", lambda *given, **options: released)
    publish.export("run")
    said = capsys.readouterr().out
    assert "The table." in said and str(tmp_path / "card") in said
    assert ("Left out, as it differs too much from the Keras model: a.tflite: x." in said) is not passed
    assert (f"tf-detreg serve {tmp_path / 'bird'} --index INDEX" in said) is passed
    assert ("docs/apps.md" in said) is not passed

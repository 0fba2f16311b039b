"""What the README shows is what happens."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import conclusions as conclusions_script

README = pathlib.Path(__file__).parents[1] / "README.md"


def keras_script() -> str:
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return script


def recall(printed: str) -> float:
    return float(re.search(r"R@1\W+([\d.]+)", printed.split("Epoch")[-1])[1])


def test_the_keras_script_runs(tmp_path, monkeypatch, capsys):
    """With one epoch in place of three, in this process; as it is printed it runs in the slow tests."""
    script = keras_script()
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    assert "epochs=3" in script
    monkeypatch.chdir(tmp_path)
    exec(compile(script.replace("epochs=3", "epochs=1"), "README.md", "exec"), {"__name__": "readme"})
    assert recall(capsys.readouterr().out) > 20, "an epoch finds more than raw pixels find"
    assert (tmp_path / "saved_models" / "glyphs" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_the_keras_script_runs_as_printed(tmp_path):
    script = keras_script()
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert recall(done.stdout) > 30, "three epochs find twice what raw pixels find"
    assert (tmp_path / "saved_models" / "glyphs" / "1" / "saved_model.pb").is_file()


def test_every_quoted_difference_is_printed_by_a_command():
    root = README.parent
    conclusions, tables = (root / "docs" / "results.md").read_text(encoding="utf-8").split("\n---\n", 1)
    printed = tables + conclusions_script.printed()
    difference = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")
    quoted = " ".join((README.read_text(encoding="utf-8") + conclusions).replace("−", "-").split())
    found = difference.findall(quoted)
    assert len(found) > 15
    assert not sorted(set(found) - set(difference.findall(printed)))

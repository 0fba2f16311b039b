"""What the README shows is what happens."""

import os
import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_keras_script_runs_as_printed(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    recall = float(re.search(r"R@1\W+([\d.]+)", done.stdout.split("Epoch")[-1])[1])
    assert recall > 30, "three epochs find twice what raw pixels find"
    assert (tmp_path / "saved_models" / "glyphs" / "1" / "saved_model.pb").is_file()


def test_every_quoted_difference_is_printed_by_a_command():
    root = README.parent
    conclusions, tables = (root / "docs" / "results.md").read_text(encoding="utf-8").split("\n---\n", 1)
    script = [sys.executable, str(root / "studies" / "conclusions.py")]
    printed = tables + subprocess.run(script, capture_output=True, text=True, check=True).stdout
    difference = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")
    quoted = " ".join((README.read_text(encoding="utf-8") + conclusions).replace("−", "-").split())
    found = difference.findall(quoted)
    assert len(found) > 15
    assert not sorted(set(found) - set(difference.findall(printed)))

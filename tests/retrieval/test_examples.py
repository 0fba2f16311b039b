"""The examples about retrieval do what they say."""

import pathlib
import re
import runpy
import sys

import pytest

from tests import needs

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run(monkeypatch, capfd, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capfd.readouterr().out


def test_a_gallery_is_searched_by_picture(monkeypatch, capfd, tmp_path):
    pytest.importorskip("sklearn")
    output = run(monkeypatch, capfd, "gallery_search.py", "-k", 3, "--picture", tmp_path / "found.png")
    firsts = re.findall(r"query \d  1\. (\S+)", output)
    assert firsts == ["1.000"] * 4  # the queries are in the gallery
    assert len(output.splitlines()) == 4 * 3 + 1
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_exact_and_scann_agree_and_scann_says_how_well(monkeypatch, capfd):
    needs.scann()
    output = run(monkeypatch, capfd, "exact_or_scann.py", "--items", 3000)
    exact, near = (float(found) for found in re.findall(r"R@1 ([\d.]+) %", output))
    assert near == pytest.approx(exact, abs=1)
    assert float(re.search(r"ScaNN found ([\d.]+) % of the true 10", output)[1]) >= 99

"""The README's plot of heads against numbers of classes shows what the table of its study holds."""

import importlib.util
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("head_plot", ROOT / "docs" / "head_plot.py")
head_plot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(head_plot)


def test_differences_to_the_linear_head_are_those_of_the_results_page():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    studies = {name for name, metric, _ in head_plot.PANELS if metric == "recall@1"}
    assert studies == {"emoji-classes", "glyphs-classes"}
    for name in studies:
        found = head_plot.differences(name, "recall@1")
        assert len(found) >= 2 and all(len(points) >= 3 for points in found.values())
        for points in found.values():
            for linear, gap in points.values():
                assert f"{linear:.2f} ± " in page
                assert f"{gap.mean:+.2f} [{gap.t[0]:+.2f}, {gap.t[1]:+.2f}] / " in page


def test_the_picture_is_that_of_the_table(tmp_path):
    head_plot.draw(tmp_path / "plot.svg")
    numbers = re.compile(r">(\d+\.\d) %<")
    kept = head_plot.PICTURE.read_text(encoding="utf-8")
    drawn = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert numbers.findall(kept) == numbers.findall(drawn) and len(numbers.findall(kept)) == 15
    assert re.sub(r"\d+\.\d+", "", kept) == re.sub(r"\d+\.\d+", "", drawn)

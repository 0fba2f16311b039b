"""The report: one file, nothing fetched, nothing injected, numbers where they belong."""

import re

import numpy as np
import pytest

from tf_detreg.analysis import report, run_page
from tf_detreg.datasets import ImageSet


@pytest.fixture
def page(tmp_path):
    rng = np.random.default_rng(0)
    images = ImageSet(
        labels=np.repeat(np.arange(4), 3),
        class_names=["<script>alert(1)</script>", "b", "c", "d"],
        images=rng.integers(0, 255, (12, 8, 8), dtype=np.uint8),
    )
    good = np.eye(4)[images.labels] + 0.01 * rng.normal(size=(12, 4))
    bad = rng.normal(size=(12, 4))
    reports = run_page.compare({"before": [bad], "after": [good]}, [images.labels], k=(1, 2))
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_recall@1": 0.5}]
    path = run_page.write(tmp_path / "r.html", "A <run>", [images], [good], reports, history, {"seed": 3})
    return path.read_text(encoding="utf-8"), reports


def test_the_table_shows_what_was_measured(page):
    text, reports = page
    assert reports["after"].recall[1] == 1.0 > reports["before"].recall[1]
    assert "<td>after</td><td>100.00</td>" in text


def test_nothing_is_fetched_and_nothing_injected(page):
    text, _ = page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert text.count("<script") == 1 and "alert(1)" in text and "A &lt;run&gt;" in text
    assert text.count("&lt;script&gt;alert(1)") >= 3  # neighbors, the map, recall of each class


def test_every_query_of_a_perfect_embedding_is_right(page):
    text, _ = page
    assert "No query is wrong." in text and text.count('class="right"') > 0


def test_curves_stand_at_their_epochs():
    svg = report.curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "recall": 0.5}])
    assert svg.count("<svg") == 1 and 'aria-label="Training curves: loss, recall"' in svg
    assert report.curves([]) == "<p>No epoch has finished yet.</p>"


def test_each_quantity_has_a_plot_with_its_values(monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "svg_text", lambda figure: drawn.append(figure) or "<?xml?><svg></svg>")
    history = [
        {"epoch": 1, "loss": 3.0, "b": 1.0},
        {"epoch": 2, "loss": 2.0, "c": 5.0},
        {"epoch": 4, "loss": 1.0, "d": 0},
    ]
    assert (
        report.curves(history) == '<figure role="img" aria-label="Training curves: loss, b, c, d"><svg></svg></figure>'
    )
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["loss", "b", "c", "d"]
    points = [[tuple(xy) for xy in axes.lines[0].get_xydata()] for axes in figure.axes]
    assert points == [[(1, 3), (2, 2), (4, 1)], [(1, 1)], [(2, 5)], [(4, 0)]]
    assert {axes.get_xlim() for axes in figure.axes} == {(0.5, 3.5)}
    grids = [axes.get_subplotspec().get_geometry() for axes in figure.axes]
    assert grids == [(2, 3, place, place) for place in range(4)]
    assert tuple(figure.get_size_inches()) == pytest.approx((9.9, 4.2))
    report.curves([{"epoch": 1, "loss": 3.0}])
    assert tuple(drawn[1].get_size_inches()) == pytest.approx((3.3, 2.1))


def test_the_best_row_alone_stands_out():
    rows = [{"<a>": "x", "R@1": 0.5}, {"<a>": "<y>", "R@1": 2}, {"<a>": "z", "R@1": 3.0}]
    head = '<div class="scroll"><table><thead><tr><th>&lt;a&gt;</th><th>R@1</th></tr></thead><tbody>'
    first, last = "<td>x</td><td>0.50</td></tr>", "<td>z</td><td>3.00</td></tr></tbody></table></div>"
    middle = "<td>&lt;y&gt;</td><td>2</td></tr>"
    best = '<tr class="best">'
    assert report.table(rows) == f"{head}<tr>{first}<tr>{middle}<tr>{last}"
    assert report.table(rows, 0) == f"{head}{best}{first}<tr>{middle}<tr>{last}"
    assert report.table(rows, 1) == f"{head}<tr>{first}{best}{middle}<tr>{last}"
    assert report.table([]).count("<td>") == 0

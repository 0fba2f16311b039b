"""The small version of every study of the repository, once, on the digits or on small trees in the official layouts.

Eagerly: what takes long in a small trial is tracing, and the traced step is tested elsewhere.
"""

import pathlib

import pytest
import tensorflow as tf

from tests.datasets import trees
from tf_detreg.experiments import ablation

ROOT = pathlib.Path(__file__).parents[2] / "studies"
STUDIES = sorted(ROOT.glob("*.toml"))
PAPERS = sorted((ROOT / "paper").glob("*.toml"))


@pytest.fixture(autouse=True)
def eager(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    """The folders of the four benchmarks, as their authors pack them."""
    root = tmp_path_factory.mktemp("benchmarks")
    return {
        "cub": trees.cub(root / "CUB_200_2011", species=(1, 2, 3, 4, 5, 6, 101, 102, 103)),
        "cars": trees.cars(root / "cars", models=(1, 2, 3, 4, 5, 6, 99, 100, 101)),
        "sop": trees.sop(root / "Stanford_Online_Products", articles=8),
        "in-shop": trees.in_shop(root / "In-shop", garments=8),
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_smoke_of_every_study(path, tmp_path):
    page = ablation.ablate(path, tmp_path, jobs=0, smoke=True, progress=False)
    assert "<table>" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_smoke_of_every_table_of_the_papers(path, tmp_path, benchmarks):
    name = next(name for name in benchmarks if path.stem.startswith(name))
    page = ablation.ablate(path, tmp_path, jobs=0, smoke=True, progress=False, data=str(benchmarks[name]))
    text = page.read_text()
    assert "official test classes" in text and ("published" in text) == ("[[papers]]" in path.read_text())

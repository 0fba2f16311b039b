"""The demo, on the smallest data set: every promised file is there and whole."""

import subprocess
import sys

import pytest

from tf_detreg.demo import demo

# A shallow flow: of one with twelve layers, each of the graphs that are traced here takes seconds.
SMALL = {
    "data": "digits",
    "head": {"name": "RealNVP", "dim": 128, "depth": 2, "hidden": 16, "penalty": 10.0},
    "classes": 4,
    "epochs": 1,
    "evaluate_every": 1,
}
LOADERS = {
    "saved_model": "import sys; sys.modules.update(keras=None); import tensorflow as tf; "
    "f = tf.saved_model.load(sys.argv[1]).signatures['serving_default']; "
    "print(f(images=tf.zeros((1, 8, 8, 3)))['embeddings'].shape)",
    "lite": "import sys; from ai_edge_litert.interpreter import Interpreter; i = Interpreter(sys.argv[1]); "
    "print(tuple(i.get_output_details()[0]['shape_signature']))",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    return demo(place / "run", place / "exports", verbose=0, **SMALL)


def test_what_is_compared_is_raw_before_and_after(result):
    assert list(result.reports) == ["raw pixels", "before training", "after training"]
    assert len({report.queries for report in result.reports.values()}) == 1
    assert "after training" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", LOADERS)
def test_exports_load_where_our_code_is_unknown(result, kind):
    for path in [result.saved_model] if kind == "saved_model" else result.lite:
        done = subprocess.run(
            [sys.executable, "-c", LOADERS[kind], str(path)], capture_output=True, text=True, timeout=300
        )
        assert "128" in done.stdout, done.stderr[-2000:]
        assert "tf_detreg" not in done.stderr


def test_the_demo_goes_on_where_it_stopped(result, monkeypatch):
    monkeypatch.setattr("tf_detreg.extras.missing", lambda *packages: ("ai_edge_litert",))  # the SavedModel is enough
    again = demo(result.run, result.saved_model.parents[1], verbose=0, **SMALL)
    assert again.reports["after training"].metrics == result.reports["after training"].metrics
    assert again.saved_model.name == "2" and again.lite == ()


@pytest.mark.parametrize(("verbose", "shown"), [(0, 0), (1, 2), ("auto", 2)])
def test_a_line_an_epoch_is_shown_unless_nothing_is_to_be(verbose, shown, monkeypatch, tmp_path):
    def train(config, directory, **options):
        assert (directory, options["resume"], options["verbose"]) == (tmp_path, True, shown)
        raise InterruptedError

    monkeypatch.setattr("tf_detreg.training.train", train)
    with pytest.raises(InterruptedError):
        demo(tmp_path, tmp_path / "exports", verbose=verbose)

"""What holds for all tests."""

import gc
import os
import sys
import types

import pytest

# XLA takes most of its time to make machine code fast that a test runs once. What XLA makes of a graph stays the same.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

# Files that take longest, which go first: a long one at the end would leave the other processes without work.
LONGEST = (
    "tests/test_cli.py",
    "tests/test_pages.py",
    "tests/backbones/test_hub_chain.py",
    "tests/losses/test_every_loss.py",
    "tests/export/test_release.py",
    "tests/export/test_integers.py",
    "tests/training/test_metric_model.py",
    "tests/heads/test_layer_contract.py",
    "tests/training/test_fine_tuning.py",
    "tests/experiments/test_runs.py",
    "tests/test_faults.py",
    "tests/export/test_savedmodel.py",
    "tests/training/test_run.py",
    "tests/export/test_lite.py",
    "tests/training/test_resume.py",
    "tests/test_extras.py",
    "tests/test_demo.py",
    "tests/training/test_combinations.py",
    "tests/analysis/test_lipschitz.py",
    "tests/datasets/test_command.py",
    "tests/serving/test_server.py",
    "tests/images/test_corpus.py",
    "tests/miners/test_miners.py",
    "tests/training/test_moved_data.py",
    "tests/training/test_optimizers.py",
    "tests/training/test_docstrings.py",
)


def pytest_collection_modifyitems(items):
    rank = {path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.fixture(autouse=True, scope="session")
def no_xla_unless_asked_for():
    """Let `jit_compile="auto"` of Keras mean no.

    XLA takes seconds for each model that a test compiles, fits once and forgets, or calls `predict` of. What XLA makes
    of losses, heads, miners and training steps is tested where `jit_compile=True` is said.
    """
    if "keras" not in sys.modules:
        yield
        return
    import keras

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def imports_are_not_searched_for_garbage():
    """Leave what is there after the collection of tests, TensorFlow above all, out of every search for garbage.

    Also search less often than by default: the graphs of models are many objects, of which most stay for long. It stays
    so to the end, where pytest collects five times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(autouse=True, scope="session")
def conversions_search_for_no_garbage():
    """Each conversion to LiteRT searches all objects of the process, which takes half a second."""
    converter = sys.modules.get("tensorflow.lite.python.lite")
    with pytest.MonkeyPatch.context() as patch:
        if converter is not None:
            patch.setattr(converter, "gc", types.SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture(autouse=True, scope="module")
def traced_steps_are_forgotten():
    """Let go of the training steps that a file's tests traced: TensorFlow would keep all of them to the end."""
    if "tensorflow" not in sys.modules:
        yield
        return
    from tf_detreg import _compat

    with _compat.forgetting_gradients():
        yield


@pytest.fixture
def eager():
    """Let a test's steps run without tracing: see `tests.eager`."""
    from tests.eager import eagerly

    with eagerly():
        yield


@pytest.fixture(autouse=True)
def progress_ends_at_its_total(monkeypatch):
    """Let a test fail whose long work has not counted, at its end, to the number of steps that it said at its start.

    The last batch may be counted as a whole one.
    """
    if "tf_detreg" not in sys.modules:
        return
    from tf_detreg import progress

    advance, end = progress._Lines.advance, progress._Lines.end

    def counting(self, steps, result=""):
        with self.lock:
            before = sum(self.__dict__.get("counts", (self.before, 0)))
            self.counts = before, steps
        advance(self, steps, result)

    def ending(self):
        end(self)
        before, last = self.__dict__.get("counts", (self.before, 0))
        fits = before + last == self.total or before < self.total < before + last
        assert fits, f"{self.title}: counted {before:,} and {last:,} of {self.total:,}"

    monkeypatch.setattr(progress._Lines, "advance", counting)
    monkeypatch.setattr(progress._Lines, "end", ending)


@pytest.fixture
def counted(monkeypatch):
    """What the progress of long work has counted where it ended, and of how many steps: a list by title."""
    from tf_detreg import progress

    found = {}

    class Counted(progress._Lines):
        steps = 0

        def advance(self, steps, result=""):
            super().advance(steps, result)
            with self.lock:
                self.steps += steps

        def end(self):
            super().end()
            found.setdefault(self.title, []).append((self.steps, self.total))

    monkeypatch.setattr(progress, "_Lines", Counted)
    return found

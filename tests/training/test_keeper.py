"""What a run keeps of an epoch, when it measures, and the lock of its directory."""

import contextlib
import os
import types

import keras
import numpy as np
import pytest

from tf_detreg import callbacks, datasets, heads
from tf_detreg.training import RunConfig, averaging, checkpoint, claim, keeper, retrieval_evaluation, run_directory
from tf_detreg.training.keeper import FIRST_NOTES, Keeper


def image_set():
    return datasets.ImageSet(np.arange(8) % 4, list("abcd"), np.zeros((8, 4, 4, 3), np.uint8))


@contextlib.contextmanager
def noting(seen, model):
    seen.append(model)
    yield True
    seen.remove(model)


def test_retrieval_is_measured_every_so_many_epochs(monkeypatch):
    watch = callbacks.RetrievalEvaluation(image_set(), every=3, k=(1,))
    monkeypatch.setattr(watch, "measure", lambda: {"val_recall@1": 1.0})
    found = []
    for epoch in range(7):
        logs = {}
        watch.on_epoch_end(epoch, logs)
        found += [epoch] * bool(logs)
    assert found == [2, 5]


def test_retrieval_and_the_projector_take_the_averaged_weights(monkeypatch, tmp_path):
    inside, asked = [], []
    model = types.SimpleNamespace(embedder="embedder")
    report = types.SimpleNamespace(recall={1: 0.5}, map_at_r=0.25)
    monkeypatch.setattr(retrieval_evaluation, "averaged", lambda model: noting(inside, model))
    monkeypatch.setattr(retrieval_evaluation, "retrieve", lambda *given: asked.append((given, list(inside))) or report)
    images = image_set()
    watch = callbacks.RetrievalEvaluation(images, "test_", k=(1,), batch_size=5)
    watch.set_model(model)
    assert watch.measure() == {"test_recall@1": 0.5, "test_map@r": 0.25}
    assert asked == [(("embedder", images, (1,), 5), [model])]
    monkeypatch.setattr("tf_detreg.training.projector.averaged", lambda model: noting(inside, model))
    projector = callbacks.EmbeddingProjector(images, tmp_path)
    projector.set_model(model)
    monkeypatch.setattr(projector, "write", lambda embedder: asked.append((embedder, list(inside))))
    projector.on_train_end()
    assert asked[1:] == [("embedder", [model])]


class Kept:
    """A keeper whose files are lists, and whose validation images give the recalls in turn."""

    def __init__(self, directory, monkeypatch, recalls, writes=True, **changes):
        config = RunConfig.from_dict({"data": "digits", "k": [1, 3], **changes})
        self.saved, self.best, self.epochs = [], [], 0
        monkeypatch.setattr(checkpoint, "save", lambda model, folder, *given: self.saved.append((folder, given)))
        self.keeper = Keeper(directory, config, "embedder", image_set(), dict(FIRST_NOTES), writes, 4)
        monkeypatch.setattr(self.keeper, "save_embedder", lambda: self.best.append(self.epochs))
        found = iter(recalls)
        monkeypatch.setattr(self.keeper.evaluation, "measure", lambda: {"val_recall@1": next(found)})
        self.keeper.set_model(types.SimpleNamespace(stop_training=False))

    def epoch(self):
        logs = {"loss": 1.0}
        self.keeper.on_epoch_end(self.epochs, logs)
        self.epochs += 1
        return self.keeper.model.stop_training


def test_the_best_epoch_is_kept_and_patience_counts_evaluations(tmp_path, monkeypatch):
    kept = Kept(tmp_path, monkeypatch, [0.5, 0.25, 0.75, 0.75, 0.5], evaluate_every=2, patience=2)
    assert (kept.keeper.evaluation.every, kept.keeper.evaluation.k) == (2, (1, 3))
    assert [kept.epoch() for _ in range(10)] == [False] * 9 + [True]
    # Measured after every second epoch; an equal one is no better.
    assert kept.best == [1, 5] and kept.keeper.notes["best"] == 0.75 and kept.keeper.notes["waited"] == 2
    assert [epoch for _, (epoch, *_) in kept.saved] == list(range(1, 11))
    folder, (_, notes, most) = kept.saved[-1]
    assert folder == tmp_path / "checkpoints" and most == 4 and "epoch" not in notes
    assert notes["waited"] == 2 and len(notes["rows"]) == 10 and notes["rows"][-1]["val_recall@1"] == 0.5
    # What the guard stepped back from is not kept.
    assert kept.epoch() and len(kept.saved) == 10 and len(kept.keeper.table.rows) == 10


def test_one_process_of_several_writes(tmp_path, monkeypatch):
    kept = Kept(tmp_path, monkeypatch, [0.5, 0.25], writes=False, patience=1)
    assert [kept.epoch(), kept.epoch()] == [False, True]
    assert kept.saved == kept.best == [] and not list(tmp_path.iterdir())
    assert kept.keeper.notes["best"] == 0.5


def test_the_best_embedder_has_averaged_weights_and_merged_factors(tmp_path, monkeypatch):
    inside, seen = [], []

    def save(path):
        seen.append(list(inside))
        path.write_text("merged")

    monkeypatch.setattr(keeper, "averaged", lambda model: noting(inside, model))
    monkeypatch.setattr(keeper, "has_lora", lambda embedder: True)
    monkeypatch.setattr(keeper, "save_adapter", lambda embedder, path: seen.append((embedder, path.name, list(inside))))
    monkeypatch.setattr(keeper, "merge_lora", lambda embedder: types.SimpleNamespace(save=save))
    kept = Keeper(tmp_path, RunConfig(), "embedder", None, dict(FIRST_NOTES))
    kept.set_model("model")
    kept.save_embedder()
    assert seen == [("embedder", "adapter.npz", ["model"]), ["model"]]
    assert (tmp_path / "best.keras").read_text() == "merged"


@pytest.mark.parametrize(("recalls", "chosen"), [([0.5, 0.75], "best epoch, 0.25 of it"), ([0.5, 0.5], "best epoch")])
def test_the_best_of_the_averages_is_written_and_of_equal_ones_the_first(recalls, chosen, tmp_path, monkeypatch):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3), heads.Linear(2)]
    embedder = keras.Sequential([keras.Input((2, 2, 3)), *layers])
    tuned, found = embedder.get_weights(), iter(recalls)
    pretrained = [np.zeros_like(weight) for weight in tuned]
    monkeypatch.setattr("tf_detreg.models.load", lambda path: embedder)
    report = lambda *given: types.SimpleNamespace(recall={1: next(found)}, map_at_r=None)  # noqa: E731
    monkeypatch.setattr(averaging, "retrieve", report)
    data = types.SimpleNamespace(config=RunConfig(), splits=types.SimpleNamespace(validation=None))
    averaging.choose(types.SimpleNamespace(data=data), averaging.Averaging(0, (0.25,)), tmp_path, pretrained)
    share = 0.25 if chosen != "best epoch" else 1.0
    inside = {weight.path for weight in layers[1].weights}
    for weight, before in zip(embedder.weights, tuned, strict=True):
        np.testing.assert_allclose(weight, before * (share if weight.path in inside else 1.0))
    written = keras.models.load_model(tmp_path / "averaged.keras", compile=False).get_weights()
    for ours, theirs in zip(written, embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert f'"chosen": "{chosen}"' in (tmp_path / "averaging.json").read_text()


def test_as_many_checkpoints_are_kept_as_an_average_is_made_of():
    config = RunConfig.from_dict({"averaging": {"last": 5}})
    assert averaging.keep(config) == 5 and averaging.keep(RunConfig()) == 2


@pytest.mark.skipif(claim.fcntl is None, reason="no lock there")
def test_a_lock_that_was_removed_before_it_was_held_is_taken_anew(tmp_path, monkeypatch):
    path, flock, calls = tmp_path / ".lock", claim.fcntl.flock, []

    def removed_meanwhile(file, how):
        flock(file, how)
        calls.append(how)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr(claim.fcntl, "flock", removed_meanwhile)
    file = claim._lock(path)
    try:
        assert calls == [claim.fcntl.LOCK_EX | claim.fcntl.LOCK_NB] * 2
        assert os.path.samestat(os.fstat(file), os.stat(path))
    finally:
        os.close(file)


def test_what_a_killed_process_left_among_the_checkpoints_goes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / ".half.abc.tf_detreg").mkdir(parents=True)
    run_directory.prepare(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "config.json"]

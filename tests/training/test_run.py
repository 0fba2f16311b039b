"""Runs in this process, on the smallest data there is. What only a killed process shows is in test_resume.py."""

import errno
import gc
import json
import os
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.eager import eagerly
from tf_detreg import datasets, training
from tf_detreg.files import replacing
from tf_detreg.training import RunConfig, assembly, checkpoint, load_run, table_log, train
from tf_detreg.training.claim import claimed
from tf_detreg.training.config import differences
from tf_detreg.training.keeper import Keeper

FLOW = {"name": "RealNVP", "dim": 8, "depth": 1, "hidden": 8, "penalty": 0.05, "dropout": 0.1}


def small(**changes):
    values = {
        "data": "digits",
        "backbone": {"name": "small_cnn", "width": 4, "blocks": 1},
        "head": {"name": "Linear", "dim": 8, "dropout": 0.1},  # of a step with a flow, that takes most of the time
        "classes": 5,
        "images": 4,
        "epochs": 2,
        "optimizer": {"backbone_rate": 1e-2, "head_rate": 1e-2, "proxy_factor": 1.0},
    }
    return RunConfig.from_dict({**values, **changes})


@pytest.fixture(scope="module")
def splits():
    """A part of the digits: an epoch is a few steps."""
    whole = datasets.digits()
    few = lambda part: part.subset(np.flatnonzero(np.arange(len(part)) % 20 == 0))  # noqa: E731
    return datasets.Splits(*(few(part) for part in whole))


@pytest.fixture(scope="module")
def run(splits, tmp_path_factory):
    with eagerly():
        return train(small(), tmp_path_factory.mktemp("runs") / "one", splits=splits, verbose=0)


def test_one_training_after_the_other_keeps_no_graph_of_the_last(splits, tmp_path, monkeypatch):
    graphs, step = [], training.MetricModel.train_step

    def recorded(self, data):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return step(self, data)

    monkeypatch.setattr(training.MetricModel, "train_step", recorded)
    train(small(epochs=1), tmp_path / "run", splits=splits, verbose=0)
    training.assemble(small(epochs=1), splits).fit(verbose=0)
    gc.collect()
    assert len(graphs) >= 2 and not [graph for graph in graphs if graph() is not None]


def test_the_directory_holds_what_was_promised(run, splits):
    names = {path.name for path in run.directory.iterdir()}
    assert names == {"config.json", "checkpoints", "best.keras", "embedder.keras", "history.csv", "evaluation.json"}
    assert RunConfig.load(run.directory / "config.json") == run.config
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert {"loss", "metric_loss", "determinant", "val_recall@1", "val_map@r"} <= set(run.history[0])
    assert 0 < run.evaluation["test"]["metrics"]["recall@1"] <= 1
    best = max(row["val_recall@1"] for row in run.history)
    np.testing.assert_allclose(run.evaluation["validation"]["metrics"]["recall@1"], best)
    again = load_run(run.directory)
    assert again.finished and again.embedder.output_shape == (None, 8)


def test_what_is_assembled_without_a_directory_trains_as_a_run_does(run, splits):
    parts = training.assemble(small(), splits)
    assert parts.steps == int(parts.batches().cardinality())
    history = parts.model.fit(parts.batches(), epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], [row["loss"] for row in run.history], rtol=1e-3)
    assert parts.embedder.output_shape == (None, 8)


@pytest.mark.usefixtures("eager")
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(run, splits, tmp_path):
    same = train(small(), tmp_path / "same", splits=splits, verbose=0)
    other = train(small(seed=1), tmp_path / "other", splits=splits, verbose=0)
    for a, b in zip(run.embedder.get_weights(), same.embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(run.embedder.get_weights(), other.embedder.get_weights(), strict=True))


def test_a_finished_run_is_not_trained_again(run, splits):
    before = (run.directory / "embedder.keras").stat().st_mtime_ns
    train(small(), run.directory, resume=True, splits=splits, verbose=0)
    assert (run.directory / "embedder.keras").stat().st_mtime_ns == before


def test_a_run_in_the_way_is_refused(run, splits, tmp_path):
    with pytest.raises(ValueError, match="--resume"):
        train(small(), run.directory, splits=splits)
    with pytest.raises(ValueError, match="another configuration") as caught:
        other = small(epochs=3, head={**small().head, "dim": 16})
        train(other, run.directory, resume=True, splits=splits)
    assert "head.dim: 8 in the run, 16 now\n  epochs: 2 in the run, 3 now" in str(caught.value)
    (tmp_path / "something.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        train(small(), tmp_path, resume=True, splits=splits)
    with pytest.raises(ValueError, match="received the file"):
        train(small(), tmp_path / "something.txt", splits=splits)
    assert [path.name for path in tmp_path.iterdir()] == ["something.txt"]


@pytest.mark.usefixtures("eager")
def test_a_second_training_in_the_same_directory_is_refused(splits, tmp_path):
    said = []

    def again(epoch, logs):
        with pytest.raises(ValueError, match=r"^Another process trains in '.*run': wait [^\n]*$") as caught:
            train(small(), tmp_path / "run", resume=True, splits=splits, verbose=0)
        said.append(str(caught.value))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=again)
    run = train(small(epochs=1), tmp_path / "run", splits=splits, callbacks=[callback], verbose=0)
    assert len(said) == 1 and run.finished
    assert not list(run.directory.rglob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_the_lock_of_a_killed_process_holds_nothing_back(tmp_path):
    (tmp_path / "run").mkdir()
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-c", hold, tmp_path / "run" / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(ValueError, match="Another process trains"), claimed(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
    assert (tmp_path / "run" / ".lock").exists()
    with pytest.raises(ValueError, match="no-such-folder"):
        train(small(data="no-such-folder"), tmp_path / "run")
    with claimed(tmp_path / "run"):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list((tmp_path / "run").iterdir())


def test_a_disk_without_locks_is_trained_on_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


@pytest.mark.usefixtures("eager")
def test_a_damaged_evaluation_is_named_and_computed_again(run, splits):
    path = run.directory / "evaluation.json"
    before, weights = path.read_text(), (run.directory / "embedder.keras").read_bytes()
    changed = before.replace('"metrics"', '"netrics"'), before.replace('"test"', '"tesu"')
    for damage in (before[:200] + "\x01" + before[200:], "[]", *changed, None):
        if damage is None:
            path.unlink()
        else:
            path.write_text(damage)
            with pytest.raises(ValueError, match=r"evaluation\.json is damaged: .*--resume` computes it again"):
                load_run(run.directory).evaluation  # noqa: B018
        train(small(), run.directory, resume=True, splits=splits, verbose=0)
        again = load_run(run.directory).evaluation
        for part in ("validation", "test"):
            for what in ("metrics", "intervals"):
                assert again[part][what] == json.loads(before)[part][what]
    assert (run.directory / "embedder.keras").read_bytes() == weights


def test_a_configuration_without_its_tables_is_named(run, splits, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": run.config.to_dict(), "data": 3}))
    with pytest.raises(ValueError, match=r"config\.json is damaged: it has no table 'data'"):
        train(small(), tmp_path, resume=True, splits=splits, verbose=0)


def test_other_data_are_refused(run, splits):
    changed = datasets.Splits(splits.train.subset(np.arange(40)), splits.validation, splits.test)
    with pytest.raises(ValueError, match=r"data: train\.images"):
        train(small(), run.directory, resume=True, splits=changed)


def test_a_place_that_cannot_be_written_to_is_told_at_once(splits, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(OSError, match="Cannot write here"):
        train(small(), tmp_path / "run", splits=splits)


@pytest.mark.parametrize("victim", ["checkpoint", "best.keras", "history.csv", "embedder.keras"])
@pytest.mark.usefixtures("eager")
def test_a_disk_that_fills_up_costs_an_epoch_at_most(victim, run, splits, tmp_path, monkeypatch):
    """Half of a file is written, then the disk is full: in the second epoch, or at the very end."""
    directory, writes = tmp_path / "run", []

    def full(path):
        with open(path, "wb") as file:
            file.write(b"PK half of a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def second_time(function, path_of):
        def write(*args, **kwargs):
            writes.append(path_of(*args))
            return full(writes[-1]) if len(writes) == 2 else function(*args, **kwargs)

        return write

    with monkeypatch.context() as patched:
        if victim == "checkpoint":
            patched.setattr(np, "savez", second_time(np.savez, lambda file, *_: file.name))
        elif victim == "history.csv":
            patched.setattr(table_log, "write_text", second_time(table_log.write_text, lambda path, *_: f"{path}.part"))
        elif victim == "best.keras":
            patched.setattr(Keeper, "save_embedder", lambda self: _write_into(self.directory / "best.keras", full))
        else:
            patched.setattr("shutil.copyfile", lambda source, target: full(target))
        with pytest.raises(OSError, match=r"No space left on device.*--resume") as caught:
            train(small(), directory, splits=splits, verbose=0)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(directory)
    kept = checkpoint.checkpoints(directory / "checkpoints")
    assert len(kept) == {"best.keras": 0, "embedder.keras": 2}.get(victim, 1)
    assert (f"checkpoint is {kept[-1].name}" if kept else "no checkpoint") in str(caught.value)
    assert not load_run(directory).finished

    again = train(small(), directory, resume=True, splits=splits, verbose=0)
    for a, b in zip(run.embedder.get_weights(), again.embedder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.history == run.history


def _write_into(path, write):
    with replacing(path) as temporary:
        write(temporary)


def test_one_class_is_not_enough(splits, tmp_path):
    one = splits.train.select_classes([0])
    with pytest.raises(ValueError, match="at least 2 classes"):
        train(small(), tmp_path / "runs" / "one", splits=datasets.Splits(one, splits.validation, splits.test))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["classes", "images"])
def test_batches_without_pairs_are_refused_for_a_loss_that_compares_them(field, splits, tmp_path):
    for loss in ("SupCon", "TripletSemiHard", "Margin"):
        with pytest.raises(ValueError, match=rf"`{field}` must be 2 or more for loss='{loss}'.*ProxyAnchor"):
            train(small(loss=loss, **{field: 1}), tmp_path / "run", splits=splits, verbose=0)
    assert not list(tmp_path.iterdir())
    for loss in ("ProxyAnchor", {"name": "CrossBatchMemory", "loss": "SupCon"}):
        assembly.check_batches(small(loss=loss, **{field: 1}), splits.train)


@pytest.mark.usefixtures("eager")
def test_a_class_with_a_single_picture_trains_beside_others(splits, tmp_path, caplog):
    labels = splits.train.labels
    few = np.sort(np.concatenate([np.flatnonzero(labels == 0)[:1], np.flatnonzero(labels > 0)]))
    data = datasets.Splits(splits.train.subset(few), splits.validation, splits.test)
    run = train(small(loss="SupCon", epochs=1), tmp_path / "run", splits=data, verbose=0)
    assert np.isfinite(run.history[-1]["metric_loss"]) and run.history[-1]["metric_loss"] > 0
    assert "two images" not in caplog.text
    singles = splits.train.subset(np.unique(labels, return_index=True)[1])
    assembly.check_batches(small(loss="SupCon", crop={"scale": [0.5, 1.0]}), singles)
    assembly.check_batches(small(), singles)
    assert "two images" not in caplog.text
    assembly.check_batches(small(loss="SupCon"), singles)
    assert "has two images: a batch repeats each, and loss='SupCon' only pushes them apart" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_epochs": 1}, r"after warmup_epochs=1 no step of epochs=1 \(5 steps\).*Raise epochs"),
        ({"warmup_epochs": 0.6, "backbone_delay_epochs": 0.6}, "warmup_epochs=0.6 and backbone_delay_epochs=0.6"),
        ({"warmup_epochs": "1"}, "`warmup_epochs` must be a finite number, 0 or more"),
    ],
)
def test_a_warm_up_as_long_as_the_run_is_told_in_epochs(options, message):
    with pytest.raises(ValueError, match=message):
        assembly.build_optimizer(small(epochs=1, optimizer=options), steps=5)
    assembly.build_optimizer(small(epochs=1, optimizer={"warmup_epochs": 1, "decay": "none"}), steps=5)


def test_everything_at_once(splits, tmp_path):
    """Rival with own proxies, interpolation, average of the weights, clipping, augmentation, half precision."""
    config = small(
        head=FLOW,
        rival={"penalty": -0.05, "loss_weight": 0.5, "proxies": "own", "depth": 1},
        interpolation={"epsilon": 0.4, "random": True},
        augment=[{"name": "RandomTranslation", "height_factor": 0.1, "width_factor": 0.1}],
        optimizer={"ema": 0.9, "clipnorm": 1.0, "warmup_epochs": 0.5, "backbone_delay_epochs": 0.5, "proxy_factor": 10},
        unfreezing={"start": 1, "stages": 1},
        precision="mixed_float16",
        epochs=3,
    )
    run = train(config, tmp_path / "run", splits=splits, verbose=0)
    assert {"rival_determinant", "rival_loss"} <= set(run.history[-1])
    assert all(np.isfinite(list(row.values())).all() for row in run.history)


def test_a_head_trains_on_features_that_are_computed_once(splits, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_DETREG_CACHE", str(tmp_path / "cache"))
    run = train(small(head=FLOW, features=True, epochs=3), tmp_path / "run", splits=splits, verbose=0)
    assert run.embedder.input_shape == (None, 8, 8, 3)
    from tf_detreg.training.retrieval_evaluation import retrieve

    # The saved embedder maps images, and scores what the head scored on the features.
    report = retrieve(run.embedder, splits.test)
    np.testing.assert_allclose(report.recall[1], run.evaluation["test"]["metrics"]["recall@1"], atol=0.02)
    written = {path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.f32")}
    train(small(features=True, epochs=1), tmp_path / "again", splits=splits, verbose=0)
    assert written == {path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.f32")}


@pytest.mark.usefixtures("eager")
def test_photos_of_all_sizes_in_a_folder(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in range(6):
        (tmp_path / "photos" / f"Ärt {kind}").mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(40 * kind, 40 * kind + 50, (rng.integers(20, 60), rng.integers(20, 60), 3))
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / "photos" / f"Ärt {kind}" / f"{i}.jpg")
    (tmp_path / "photos" / "Ärt 0" / "text.jpg").write_text("no picture")
    config = small(
        data=str(tmp_path / "photos"), image_size=16, crop={"scale": [0.5, 1.0]}, classes=2, images=2, epochs=1
    )
    run = train(config, tmp_path / "run", verbose=0)
    assert load_run(run.directory).splits().train.num_classes == 3
    assert run.evaluation["test"]["queries"] > 0


@pytest.mark.usefixtures("eager")
def test_patience_ends_a_run_and_the_best_epoch_stays(splits, tmp_path):
    still = {"backbone_rate": 0.0, "head_rate": 0.0, "weight_decay": 0.0, "proxy_factor": 1.0}
    config = small(epochs=9, patience=2, optimizer=still, backbone={"name": "small_cnn", "width": 4, "blocks": 1})
    frozen = config.replace(backbone={**config.backbone, "name": "small_cnn"})
    run = train(frozen, tmp_path / "run", splits=splits, verbose=0)
    best = int(np.argmax([row["val_recall@1"] for row in run.history]))
    assert len(run.history) == best + 1 + 2 < 9
    before = checkpoint.checkpoints(run.directory / "checkpoints")[-1].name
    (run.directory / "embedder.keras").unlink()  # killed just before the end
    train(frozen, run.directory, resume=True, splits=splits, verbose=0)
    assert checkpoint.checkpoints(run.directory / "checkpoints")[-1].name == before


def test_a_run_that_blows_up_says_so_and_keeps_the_last_good_weights(splits, tmp_path):
    config = small(head=FLOW, optimizer={"backbone_rate": 1e30, "head_rate": 1e30, "method": "SGD"}, epochs=3)
    with pytest.raises(training.TrainingDiverged, match="learning rate"):
        train(config, tmp_path / "run", splits=splits, verbose=0)
    assert all(np.isfinite(weight).all() for weight in load_run(tmp_path / "run").embedder.get_weights())


def test_damaged_and_foreign_checkpoints_are_named(run, splits, tmp_path):
    build = lambda config: assembly.build_model(  # noqa: E731
        config, splits.train, assembly.build_embedder(config, splits.train.image_size), 5
    )
    model = build(small())
    model.optimizer.build(model.trainable_variables)
    (tmp_path / "epoch-0001.npz").write_bytes(b"PK\x03\x04 half of a file")
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.restore(model, tmp_path / "epoch-0001.npz")
    wider = build(small(head={**small().head, "dim": 10}))
    wider.optimizer.build(wider.trainable_variables)
    with pytest.raises(ValueError, match="another model"):
        checkpoint.restore(wider, checkpoint.checkpoints(run.directory / "checkpoints")[-1])


def test_a_checkpoint_of_bfloat16_is_read_again(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    before = [np.array(weight, np.float32) for weight in model.get_weights()]
    path = checkpoint.save(model, tmp_path, 1, {})
    model.layers[0].kernel.assign(np.zeros((3, 2)))
    assert checkpoint.restore(model, path)["epoch"] == 1
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(np.array(weight, np.float32), expected)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_run(tmp_path)


@pytest.mark.usefixtures("eager")
def test_what_a_kill_leaves_before_the_first_epoch_is_in_no_ones_way(splits, tmp_path):
    for room in (".config.json.abc", "..writable.abc"):
        (tmp_path / room).mkdir()
    (tmp_path / ".writable").touch()
    assert train(small(epochs=1), tmp_path, resume=True, splits=splits, verbose=0).finished
    assert not list(tmp_path.glob(".*"))


def test_configurations_read_what_they_write(tmp_path):
    config = small(rival={"penalty": -0.1}, regularizers=[{"name": "Lipschitz", "weight": 0.1}], monitor="map@r")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert RunConfig.load(tmp_path / "config.json") == config
    (tmp_path / "config.toml").write_text('epochs = 3\nloss = "ProxyAnchor"\n[head]\nname = "Linear"\ndim = 4\n')
    read = RunConfig.load(tmp_path / "config.toml")
    assert (read.epochs, read.head, read.loss) == (3, {"name": "Linear", "dim": 4}, {"name": "ProxyAnchor"})
    assert differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == ["a.c: null in the run, 2 now"]


@pytest.mark.parametrize("content", ["[1]", "3", '{"config": "x"}', "{", '{"config": {"epoch": 3}}', "\udcff"])
def test_a_damaged_configuration_is_named(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"^[^\n]*config\.json[^\n]*$"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"epochs": 0}, "epochs"),
        ({"k": 5}, "`k` must be a list; received 5"),
        ({"k": [1, 0]}, r"`k` must be a list of whole numbers, 1 or more; received \[1, 0\]"),
        ({"k": []}, "`k` must be a list of whole numbers"),
        ({"features": "no"}, "`features` must be true or false; received 'no'"),
        ({"augment": 5}, "`augment` must be a list"),
        ({"classes": 2.5}, "classes"),
        ({"head": {"dim": 3}}, "head"),
        ({"monitor": "recall@3"}, "monitor"),
        ({"strategy": "tpu"}, "strategy"),
        ({"rival": "RealNVP"}, "rival"),
        ({"features": True, "crop": {}}, "features"),
    ],
)
def test_wrong_entries_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"name": "RealNPV", "dim": 8}}, "RealNVP"),
        ({"head": {"name": "RealNVP", "dim": 8, "dept": 2}}, "dept"),
        ({"loss": "ProxyAnker"}, "ProxyAnchor"),
        ({"data": "no-such-folder"}, "no-such-folder"),
        ({"optimizer": {"backbone_lr": 1.0}}, "backbone_lr"),
    ],
)
def test_parts_that_do_not_exist_are_named(changes, message, splits, tmp_path):
    given = None if "data" in changes else splits
    with pytest.raises(ValueError, match=message):
        train(small(**changes), tmp_path / "run", splits=given, verbose=0)
    assert not list(tmp_path.iterdir())

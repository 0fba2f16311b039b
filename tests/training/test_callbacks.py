import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import callbacks, datasets, heads
from tf_detreg.losses.proxy_anchor import ProxyAnchor
from tf_detreg.training import MetricModel, optimizer
from tf_detreg.training.table_log import from_csv, to_csv


def colours(classes=6, images=4):
    """Images that differ in their mean colour, a class each."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), images)
    pixels = rng.uniform(0, 255, (classes, 1, 1, 3))[labels] + rng.normal(0, 5, (len(labels), 4, 4, 3))
    return datasets.ImageSet(labels, [f"colour {c}" for c in range(classes)], np.clip(pixels, 0, 255).astype("uint8"))


def model_for(image_set, dense=("low", "high"), **compile_options):
    layers = [keras.layers.Dense(8, activation="relu", name=name) for name in dense]
    backbone = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), *layers]
    )
    embedder = keras.Sequential([backbone, heads.RealNVP(4, depth=2, hidden=6)])
    model = MetricModel(embedder, ProxyAnchor(image_set.num_classes))
    model.compile(**{"optimizer": optimizer(1e-3, 1e-2, 1.0), **compile_options})
    return model


@pytest.fixture
def images():
    keras.utils.set_random_seed(0)
    return colours()


def test_retrieval_enters_the_logs_and_others_can_watch_it(images, tmp_path):
    watch = [
        callbacks.RetrievalEvaluation(images, k=(1, 2), every=1),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_recall@1", mode="max", save_best_only=True),
        keras.callbacks.EarlyStopping("val_recall@1", mode="max", patience=1, min_delta=2.0),
    ]
    history = model_for(images).fit(images.batches(3, 2), epochs=9, callbacks=watch, verbose=0).history
    assert len(history["val_recall@1"]) == 2  # no gain of 2 is possible: early stopping saw the value
    assert (tmp_path / "best.keras").exists()
    assert all(0 < value <= 1 for value in history["val_recall@1"] + history["val_map@r"])


def test_retrieval_equals_a_count_by_hand(images):
    rng = np.random.default_rng(1)
    images = datasets.ImageSet(images.labels, images.class_names, rng.integers(0, 255, (24, 4, 4, 3), "uint8"))
    model = model_for(images, dense=())
    watch = callbacks.RetrievalEvaluation(images, k=(1,))
    watch.set_model(model)
    vectors = model.predict(images.images.astype("float32"), verbose=0)
    scores = vectors @ vectors.T - 9 * np.eye(len(vectors))
    expected = np.mean(images.labels[scores.argmax(1)] == images.labels)
    np.testing.assert_allclose(watch.measure()["val_recall@1"], expected)


def test_the_guard_steps_back_and_names_the_term(images):
    model = model_for(images)
    x = images.images.astype("float32")
    x[-1] = np.nan  # the last batch alone
    guard = callbacks.NaNGuard(every=10)
    model.fit(x, images.labels, batch_size=6, epochs=5, shuffle=False, callbacks=[guard], verbose=0)
    assert "epoch 1 at batch 4" in guard.reason and "images" in guard.reason
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    healthy = callbacks.NaNGuard()
    model.fit(x[:6], images.labels[:6], callbacks=[healthy], verbose=0)
    assert healthy.reason is None


def test_the_guard_sees_what_is_wrong_in_half_precision():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    model.compile("sgd", "mse")
    model.layers[0].kernel.assign(np.full((3, 2), np.nan))
    guard = callbacks.NaNGuard()
    guard.set_model(model)
    with pytest.raises(callbacks.TrainingDiverged, match="before training has begun"):
        guard.on_train_begin()


def test_the_guard_says_which_regularizer(images):
    from tf_detreg.regularizers.base import Regularizer

    class Explodes(Regularizer):
        def penalty(self, context):
            return tf.math.log(tf.reduce_sum(context.embeddings) * 0.0) * 0.0

    embedder = model_for(images).embedder
    model = MetricModel(embedder, ProxyAnchor(6), regularizers=[Explodes(name="explodes")])
    model.compile("sgd")
    guard = callbacks.NaNGuard()
    model.fit(images.batches(3, 2), callbacks=[guard], verbose=0)
    assert ": explodes became NaN" in guard.reason


def test_the_table_is_whole_after_each_epoch_and_drops_rows_that_are_done_again(images, tmp_path):
    log = callbacks.TableLog(tmp_path / "history.csv", [{"epoch": 1, "loss": 9.0}, {"epoch": 2, "loss": 8.0}])
    log.on_epoch_end(1, {"loss": 7.0, "val_recall@1": 0.5})
    assert from_csv(tmp_path / "history.csv") == [
        {"epoch": 1, "loss": 9.0},
        {"epoch": 2, "loss": 7.0, "val_recall@1": 0.5},
    ]
    assert to_csv([]) == "\n"


def test_unfreezing_frees_the_backbone_from_its_top(images):
    model = model_for(images)
    inner = next(layer for layer in model.backbone.layers if hasattr(layer, "layers"))
    low, high = inner.get_layer("low"), inner.get_layer("high")
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append((low.kernel.numpy(), high.kernel.numpy()))

    callbacks_ = [callbacks.GradualUnfreezing(start=1, every=1, stages=2), Watch()]
    model.fit(images.batches(3, 2), epochs=4, callbacks=callbacks_, verbose=0)
    moved = [[not np.array_equal(a, b) for a, b in zip(x, y, strict=True)] for x, y in itertools.pairwise(seen)]
    assert moved == [[False, False], [False, True], [True, True]]


def test_the_projector_gets_vectors_labels_and_pictures(images, tmp_path):
    from PIL import Image

    model = model_for(images)
    callbacks.EmbeddingProjector(images, tmp_path, limit=10, thumbnail=8).write(model.embedder)
    vectors = np.loadtxt(tmp_path / "embeddings.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, model.predict(images.images[:10].astype("float32"), verbose=0), atol=1e-5)
    assert (tmp_path / "labels.tsv").read_text().splitlines() == [f"colour {c}" for c in images.labels[:10]]
    sheet = Image.open(tmp_path / "images.png")
    assert sheet.size == (32, 32)
    whole = np.asarray(sheet)
    for row, picture in enumerate(images.images[:10]):
        part = whole[8 * (row // 4) :][:8, 8 * (row % 4) :][:, :8]
        np.testing.assert_array_equal(part, np.asarray(Image.fromarray(picture).resize((8, 8))))
    assert (whole[16:, 16:] == 255).all()
    assert (tmp_path / "projector_config.pbtxt").read_text() == (
        'embeddings {\n  tensor_path: "embeddings.tsv"\n  metadata_path: "labels.tsv"\n'
        '  sprite { image_path: "images.png" single_image_dim: 8 single_image_dim: 8 }\n}\n'
    )
    # TensorBoard takes a picture of 8,192 pixels a side at most.
    assert [callbacks.EmbeddingProjector(images, tmp_path, 9999, side).limit for side in (48, 2048, 8192)] == [
        9999,
        16,
        1,
    ]


def test_one_rank_will_do():
    assert callbacks.RetrievalEvaluation(colours(), k=3).names == ["val_recall@3", "val_map@r"]


@pytest.mark.parametrize("content", ["epoch,loss\n1,x\n", "epoch,loss\n1,2,3\n", "epoch,loss\nx,1\n"])
def test_a_damaged_table_is_named(content, tmp_path):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(ValueError, match=r"history\.csv is damaged"):
        from_csv(tmp_path / "history.csv")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.NaNGuard(every=0), "every"),
        (lambda: callbacks.GradualUnfreezing(stages=0), "stages"),
        (lambda: callbacks.RetrievalEvaluation(colours(images=1)), "image_set"),
        (lambda: callbacks.RetrievalEvaluation((np.zeros((4, 8, 8, 3)), [0, 0, 1, 1])), "ImageSet; received tuple"),
        (lambda: callbacks.RetrievalEvaluation(colours(), every=0), "every"),
        (lambda: callbacks.RetrievalEvaluation(colours(), k=(1, 0)), "`k` must be positive integers"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_time_left_counts_the_batches_of_all_epochs(capsys, monkeypatch):
    from tf_detreg import progress

    monkeypatch.setattr(progress, "EVERY", 0.0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    data = np.ones((8, 2)), np.ones(8)
    with callbacks.TimeLeft() as time_left:
        model.fit(*data, batch_size=2, epochs=3, initial_epoch=1, verbose=0, callbacks=[time_left])
    assert time_left.done == 8
    lines = capsys.readouterr().err.splitlines()
    assert "Training: 1/8 (12 %)" in lines[0] and "left" in lines[0]
    assert "8/8 (100 %)" in lines[-1]


def test_time_left_ends_where_training_fails(capsys):
    class Breaks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("broken")

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    time_left = callbacks.TimeLeft()
    with pytest.raises(RuntimeError, match="broken"), time_left:
        model.fit(np.ones((8, 2)), np.ones(8), verbose=0, callbacks=[time_left, Breaks()])
    assert time_left.done == 1 and not time_left._open._exit_callbacks

"""Pair losses against frozen values of TensorFlow Addons 0.23 and pytorch-metric-learning 2.9."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import losses, miners

DATA = Path(__file__).parents[1] / "data"
ADDONS = np.load(DATA / "tfa_pairs.npz")
PML = np.load(DATA / "pml_pairs.npz")
DISTANCES = {"L2": "euclidean", "squared-L2": "squared", "angular": "cosine"}


def value_and_gradient(loss, labels, embeddings):
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    return float(value), tape.gradient(value, embeddings).numpy()


def from_addons(kind):
    return [name.removesuffix("/loss") for name in ADDONS.files if f"/{kind}" in name and name.endswith("/loss")]


def option(name, key):
    return name.split(f"{key}=")[1].split("/")[0]


def against_addons(name, loss, tolerance=2e-6):
    scene = name[0]
    value, gradient = value_and_gradient(loss, ADDONS[f"{scene}/y"], ADDONS[f"{scene}/emb"])
    assert value == pytest.approx(float(ADDONS[f"{name}/loss"]), rel=tolerance)
    expected = ADDONS[f"{name}/grad"]
    np.testing.assert_allclose(gradient, expected, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", from_addons("TripletSemiHard"))
def test_semi_hard_triplets_equal_addons(name):
    kind = DISTANCES[name.split("/")[3]]
    against_addons(name, losses.TripletSemiHard(float(option(name, "margin")), kind, normalize=False))


@pytest.mark.parametrize("name", from_addons("TripletHard"))
def test_batch_hard_triplets_equal_addons(name):
    kind, soft = DISTANCES[name.split("/")[3]], option(name, "soft") == "True"
    against_addons(
        name, losses.TripletBatchHard(float(option(name, "margin")), soft, kind, normalize=False), tolerance=1e-5
    )


@pytest.mark.parametrize("name", from_addons("LiftedStruct"))
def test_lifted_structure_equals_addons(name):
    against_addons(name, losses.LiftedStructure(float(option(name, "margin")), normalize=False), tolerance=1e-5)


@pytest.mark.parametrize("scene", "ac")
def test_n_pairs_equals_addons(scene):
    anchors, positives = ADDONS[f"{scene}/Npairs/anchor"], ADDONS[f"{scene}/Npairs/positive"]
    labels = ADDONS[f"{scene}/Npairs/y"]
    value = losses.NPairs()(np.concatenate([labels, labels]), np.concatenate([anchors, positives]))
    assert float(value) == pytest.approx(float(ADDONS[f"{scene}/Npairs/loss"]), rel=1e-5)


@pytest.mark.parametrize("scene", "ac")
def test_multilabel_n_pairs_equals_addons(scene):
    anchors, positives = ADDONS[f"{scene}/Npairs/anchor"], ADDONS[f"{scene}/Npairs/positive"]
    labels = ADDONS[f"{scene}/NpairsMultilabel/y"].astype(np.int32)
    each = losses.NPairsMultilabel().against(labels, anchors, labels, positives)
    assert float(tf.reduce_mean(each)) == pytest.approx(float(ADDONS[f"{scene}/NpairsMultilabel/loss"]), rel=1e-5)


ROWS = {
    "contrastive": losses.Contrastive(power=1),
    "contrastive-cosine": losses.Contrastive(power=1, negative_margin=0.5, distance="cosine"),
    "triplet": losses.Triplet(),
    "triplet-all": losses.Triplet(average="all"),
    "triplet-squared": losses.Triplet(distance="squared"),
    "triplet-swap": losses.Triplet(swap=True),
    "triplet-soft": losses.Triplet(soft=True),
    "triplet-semi-hard": losses.Triplet(0.3, negatives="semi_hard"),
    "triplet-hard": losses.Triplet(0.3, negatives="hard"),
    "batch-hard": losses.TripletBatchHard(),
    "easy-positive": losses.Contrastive(power=1, miner=miners.BatchEasyHard("easy", "semi_hard")),
    "semi-positive": losses.Contrastive(power=1, miner=miners.BatchEasyHard("semi_hard", "hard")),
    "all-hard": losses.Contrastive(power=1, miner=miners.BatchEasyHard("all", "hard")),
    "n-pairs": losses.NPairs(),
    "lifted": losses.LiftedStructure(),
    "lifted-generalized": losses.GeneralizedLiftedStructure(),
    "multi-similarity": losses.MultiSimilarity(),
    "multi-similarity-mined": losses.MultiSimilarity(beta=40.0, miner=miners.MultiSimilarity(0.1)),
    "circle": losses.Circle(),
    "sup-con": losses.SupCon(),
    "nt-xent": losses.NTXent(),
    "fast-ap": losses.FastAP(),
    # The same sets of triplets by way of a miner, and the margin loss over every triplet.
    "triplet-semi-hard ": losses.Triplet(0.3, miner=miners.SemiHard(0.3)),
    "triplet-hard ": losses.Triplet(0.3, miner=miners.Hard()),
    "batch-hard ": losses.Triplet(average="all", miner=miners.BatchHard()),
    "margin": losses.Margin(miner=lambda labels, x: every_triplet(labels), dtype="float64"),
}


def every_triplet(labels):
    same = labels[:, None] == labels[None, :]
    pairs = same & ~tf.eye(len(labels), dtype=tf.bool)
    return tf.unstack(tf.where(pairs[:, :, None] & ~same[:, None, :]), axis=1)


@pytest.mark.parametrize("name", ROWS)
def test_equals_pytorch_metric_learning(name):
    value, gradient = value_and_gradient(ROWS[name], PML["labels"], PML["embeddings"])
    tolerance = 1e-6 if name == "margin" else 1e-9  # a β of 1.2 is a float32 there
    assert value == pytest.approx(float(PML[f"{name.strip()}/loss"]), rel=tolerance)
    np.testing.assert_allclose(gradient, PML[f"{name.strip()}/gradient"], atol=tolerance)


def test_cross_batch_memory_equals_pytorch_metric_learning():
    memory = losses.CrossBatchMemory(losses.Contrastive(power=1), memory_size=12, dtype="float64")
    rows = np.concatenate([np.arange(15), np.arange(5)])
    for step in range(4):
        chosen = rows[5 * step : 5 * step + 5]
        value, gradient = value_and_gradient(memory, PML["labels"][chosen], PML["embeddings"][chosen] * (1 + step))
        assert value == pytest.approx(float(PML[f"memory/{step}/loss"]), rel=1e-9)
        np.testing.assert_allclose(gradient, PML[f"memory/{step}/gradient"], atol=1e-9)

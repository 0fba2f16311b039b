"""What the table's one frozen value for each row leaves out: sweeps over options, miners, and a memory over time."""

import numpy as np
import pytest

from tests.losses.frozen import ADDONS, PML_PAIRS
from tests.losses.table import measure
from tf_detreg import losses, miners

DISTANCES = {"L2": "euclidean", "squared-L2": "squared", "angular": "cosine"}


def from_addons(kind):
    return [name.removesuffix("/loss") for name in ADDONS.files if f"/{kind}" in name and name.endswith("/loss")]


def option(name, key):
    return name.split(f"{key}=")[1].split("/")[0]


def against_addons(name, loss, tolerance):
    scene = name[0]
    value, gradient, _ = measure(loss, ADDONS[f"{scene}/y"], ADDONS[f"{scene}/emb"])
    assert float(value) == pytest.approx(float(ADDONS[f"{name}/loss"]), rel=tolerance)
    expected = ADDONS[f"{name}/grad"]
    np.testing.assert_allclose(gradient, expected, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", from_addons("TripletSemiHard"))
def test_semi_hard_triplets_equal_addons(name):
    kind = DISTANCES[name.split("/")[3]]
    against_addons(name, losses.TripletSemiHard(float(option(name, "margin")), kind, normalize=False), 2e-6)


@pytest.mark.parametrize("name", from_addons("TripletHard"))
def test_batch_hard_triplets_equal_addons(name):
    kind, soft = DISTANCES[name.split("/")[3]], option(name, "soft") == "True"
    against_addons(name, losses.TripletBatchHard(float(option(name, "margin")), soft, kind, normalize=False), 1e-5)


@pytest.mark.parametrize("name", from_addons("LiftedStruct"))
def test_lifted_structure_equals_addons(name):
    against_addons(name, losses.LiftedStructure(float(option(name, "margin")), normalize=False), 1e-5)


@pytest.mark.parametrize("scene", "ac")
def test_n_pairs_equals_addons(scene):
    anchors, positives = ADDONS[f"{scene}/Npairs/anchor"], ADDONS[f"{scene}/Npairs/positive"]
    labels = ADDONS[f"{scene}/Npairs/y"]
    value = losses.NPairs()(np.concatenate([labels, labels]), np.concatenate([anchors, positives]))
    assert float(value) == pytest.approx(float(ADDONS[f"{scene}/Npairs/loss"]), rel=1e-5)


@pytest.mark.parametrize("scene", "ac")
@pytest.mark.parametrize("margin", ["0.5", "1.0", "2.0"])
def test_contrastive_equals_addons(scene, margin):
    """Addons scores given distances: `y d² + (1 - y) [m - d]₊²`, twice our terms."""
    name = f"{scene}/Contrastive/raw"
    wanted, far = ADDONS[f"{name}/margin={margin}/per_sample"], ADDONS[f"{name}/dist"]
    loss = losses.Contrastive(negative_margin=float(margin), normalize=False, reduction="sum")
    for same, d, each in zip(ADDONS[f"{name}/y"], far, wanted, strict=True):
        value = loss([0, 0 if same else 1], np.array([[0.0], [d]], "float32"))
        assert float(value) == pytest.approx(float(each), rel=1e-5, abs=1e-6)


MINED = {
    "easy-positive": losses.Contrastive(power=1, miner=miners.BatchEasyHard("easy", "semi_hard")),
    "semi-positive": losses.Contrastive(power=1, miner=miners.BatchEasyHard("semi_hard", "hard")),
    "all-hard": losses.Contrastive(power=1, miner=miners.BatchEasyHard("all", "hard")),
    "triplet-semi-hard": losses.Triplet(0.3, miner=miners.SemiHard(0.3)),
    "triplet-hard": losses.Triplet(0.3, miner=miners.Hard()),
    "batch-hard": losses.Triplet(average="all", miner=miners.BatchHard()),
}


@pytest.mark.parametrize("name", MINED)
def test_mined_losses_equal_pytorch_metric_learning(name):
    value, gradient, _ = measure(MINED[name], PML_PAIRS["labels"], PML_PAIRS["embeddings"])
    assert float(value) == pytest.approx(float(PML_PAIRS[f"{name}/loss"]), rel=1e-9)
    np.testing.assert_allclose(gradient, PML_PAIRS[f"{name}/gradient"], atol=1e-9)


def test_cross_batch_memory_equals_pytorch_metric_learning():
    memory = losses.CrossBatchMemory(losses.Contrastive(power=1), memory_size=12, dtype="float64")
    rows = np.concatenate([np.arange(15), np.arange(5)])
    for step in range(4):
        chosen = rows[5 * step : 5 * step + 5]
        value, gradient, _ = measure(memory, PML_PAIRS["labels"][chosen], PML_PAIRS["embeddings"][chosen] * (1 + step))
        assert float(value) == pytest.approx(float(PML_PAIRS[f"memory/{step}/loss"]), rel=1e-9)
        np.testing.assert_allclose(gradient, PML_PAIRS[f"memory/{step}/gradient"], atol=1e-9)

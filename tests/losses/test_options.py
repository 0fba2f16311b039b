"""A wrong option is refused by a message that names it."""

import inspect

import keras
import pytest

from tests.losses.table import AllTriplets
from tf_detreg import losses, miners


@pytest.mark.parametrize(
    "loss, options, name",
    [
        (losses.ProxyAnchor, {"num_classes": 0}, "num_classes"),
        (losses.ProxyNCA, {"num_classes": 1}, "num_classes"),
        (losses.ProxyGML, {"num_classes": 1}, "num_classes"),
        (losses.ProxyAnchor, {"num_classes": 3, "proxies_per_class": 0}, "proxies_per_class"),
        (losses.ProxyAnchor, {"num_classes": 3, "alpha": 0}, "alpha"),
        (losses.ProxyNCA, {"num_classes": 3, "scale": 0}, "scale"),
        (losses.ProxyNCAPlusPlus, {"num_classes": 3, "temperature": -1}, "temperature"),
        (losses.ArcFace, {"num_classes": 3, "margin": 28.6}, "radians"),
        (losses.SubCenterArcFace, {"num_classes": 3, "scale": 0}, "scale"),
        (losses.CosFace, {"num_classes": 3, "scale": -1}, "scale"),
        (losses.SoftTriple, {"num_classes": 3, "gamma": 0}, "gamma"),
        (losses.NormalizedSoftmax, {"num_classes": 3, "temperature": 0}, "temperature"),
        (losses.ProxyGML, {"num_classes": 3, "ratio": 0}, "ratio"),
        (losses.ProxyAnchor, {"num_classes": 3, "alpha": float("nan")}, "alpha"),
        (losses.ProxyAnchor, {"num_classes": 2.5}, "num_classes"),
        (losses.Margin, {"num_classes": 0}, "num_classes"),
        (losses.ProxyAnchor, {"num_classes": None}, "`num_classes` .* received None"),
        (losses.ProxyAnchor, {"num_classes": 3, "alpha": "32"}, "`alpha` .* received '32'"),
        (losses.CrossBatchMemory, {"loss": losses.Contrastive(), "memory_size": 0}, "memory_size"),
        (losses.CrossBatchMemory, {"loss": losses.Contrastive(reduction="sum")}, "reduction='sum'"),
        (losses.CrossBatchMemory, {"loss": losses.Contrastive(reduction=None)}, "reduction=None"),
        (losses.Circle, {"scale": 0}, "scale"),
        (losses.NTXent, {"temperature": 0}, "temperature"),
        (losses.SupCon, {"temperature": float("inf")}, "temperature"),
        (losses.MultiSimilarity, {"beta": -1}, "beta"),
        (losses.FastAP, {"num_bins": 0}, "num_bins"),
        (losses.FastAP, {"normalize": False}, "normalize"),
        (losses.Triplet, {"negatives": "easy"}, "negatives"),
        (losses.Triplet, {"margin": -1}, "margin"),
        (losses.TripletSemiHard, {"margin": -1}, "`margin` must be a finite number, 0 or more"),
        (losses.TripletBatchHard, {"margin": float("nan")}, "`margin` must be a finite number"),
        (losses.Contrastive, {"negative_margin": None}, "`negative_margin` must be a finite number; received None"),
        (losses.Margin, {"alpha": "0.2"}, "`alpha` must be a finite number; received '0.2'"),
        (losses.SoftTriple, {"num_classes": 3, "tau": float("inf")}, "`tau` must be a finite number"),
        (losses.ProxyAnchor, {"num_classes": True}, "`num_classes` must be a whole number, 1 or more; received True"),
        (losses.CrossBatchMemory, {"loss": losses.Contrastive(), "start": -1}, "`start` must be a whole number"),
        (losses.Triplet, {"average": "some"}, "average"),
        (losses.Contrastive, {"power": 3}, "power"),
        (losses.Contrastive, {"distance": "manhattan"}, "distance"),
        (losses.NPairsMultilabel, {"miner": AllTriplets()}, "miner"),
    ],
)
def test_wrong_arguments_are_named(loss, options, name):
    with pytest.raises(ValueError, match=name):
        loss(**options)


def test_a_loss_shows_its_settings():
    assert repr(losses.NTXent()) == (
        "NTXent(temperature=0.07, normalize=True, miner=None, reduction='sum_over_batch_size')"
    )
    assert repr(losses.Triplet(margin=0.3, miner=miners.SemiHard(0.1))).startswith(
        "Triplet(margin=0.3, negatives='all'"
    )
    assert "miner=SemiHard(margin=0.1)" in repr(losses.Triplet(miner=miners.SemiHard(0.1)))
    assert repr(losses.ProxyAnchor(3, alpha=16.0)).startswith(
        "ProxyAnchor(num_classes=3, dim=None, proxies_per_class=1"
    )
    memory = repr(losses.CrossBatchMemory(losses.SupCon(), memory_size=8))
    assert memory.startswith("CrossBatchMemory(loss=SupCon(temperature=0.1") and "memory_size=8" in memory


@pytest.mark.parametrize("name", [name for name in losses.__all__ if inspect.isclass(getattr(losses, name))])
def test_help_names_every_argument(name):
    parameters = inspect.signature(getattr(losses, name)).parameters.values()
    kwargs = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    assert not kwargs or issubclass(getattr(losses, name), keras.layers.Layer)  # what every Keras layer takes
    if issubclass(getattr(losses, name), losses.PairLoss):
        assert {"normalize", "miner", "reduction", "name"} <= {p.name for p in parameters}

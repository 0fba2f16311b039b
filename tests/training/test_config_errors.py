"""What is wrong in a configuration is told in a sentence that names the entry, never by a traceback."""

import numpy as np
import pytest

from tf_detreg import backbones, datasets, losses, training
from tf_detreg.images import RandomCrop
from tf_detreg.serving.model import ModelDirectory
from tf_detreg.training import RunConfig, assembly, stages

SMALL = {
    "data": "digits",
    "backbone": {"name": "small_cnn", "width": 2, "blocks": 1},
    "head": {"name": "Linear", "dim": 4},
    "classes": 4,
    "images": 2,
    "epochs": 1,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": {"name": "SupCon", "miner": {"margin": 1}}}, r"^`loss\.miner` must be a name, or a table with one"),
        ({"loss": {"name": "SupCon", "miner": 3}}, r"^`loss\.miner` must be a name"),
        ({"loss": {"name": "SupCon", "miner": "Foo"}}, r"^`loss\.miner` must be a class of tf_detreg\.miners"),
        ({"loss": {"name": "CrossBatchMemory", "loss": {"margin": 1}}}, r"^`loss\.loss` must be a name"),
        ({"loss": {"name": "CrossBatchMemory", "loss": 3}}, r"^`loss\.loss` must be a name"),
        ({"loss": "CrossBatchMemory"}, "^`loss`: CrossBatchMemory does not take these arguments: .*'loss'"),
        ({"loss": {"name": "SupCon", "normalize": "no"}}, "^`normalize` must be true or false; received 'no'"),
        ({"loss": "PairLoss"}, "^`loss` must be a class of tf_detreg.losses; received 'PairLoss'"),
        ({"loss": "ProxyLoss"}, "^`loss` must be a class .* received 'ProxyLoss'"),
        ({"loss": {"name": "SupCon", "miner": "Miner"}}, r"^`loss\.miner` must be a class .* received 'Miner'"),
        ({"head": {"name": "FlowHead", "dim": 4}}, "^`head` must be a class .* received 'FlowHead'"),
        ({"regularizers": ["Context"]}, "^`regularizers` must be a class .* received 'Context'"),
        ({"regularizers": [{"name": "Uniformity", "foo": 1}]}, "^`regularizers`: Uniformity does not take these"),
        ({"augment": ["Layer"]}, "^`augment` must be a class of keras.layers; received 'Layer'"),
        ({"crop": {"scale": 0.5}}, r"^`scale` must be \(least, greatest\) shares in \(0, 1\]; received 0.5"),
        ({"crop": {"zoom": [1, 2]}}, "^`crop`: datasets.RandomCrop does not take these arguments"),
        ({"interpolation": {"foo": 1}}, "^`interpolation`: training.Interpolation does not take these arguments"),
        ({"interpolation": {"random": "no"}}, "^`random` must be true or false"),
        ({"unfreezing": {"foo": 1}}, "^`unfreezing`: callbacks.GradualUnfreezing does not take these arguments"),
        ({"rival": {"loss_weight": "x"}}, "^`rival_loss_weight` must be a finite number"),
        ({"seed": "x"}, "^`seed` must be a whole number from 0 to 4294967295; received 'x'"),
        ({"seed": -1}, "^`seed` must be a whole number"),
        ({"seed": 2**32}, "^`seed` must be a whole number"),
        ({"precision": "float9"}, "^`precision` must be one of 'float32'.* received 'float9'"),
        ({"precision": 3}, "^`precision` must be one of"),
        ({"optimizer": {"backbone_delay_epochs": "2"}}, "^`backbone_delay_epochs` must be a finite number, 0 or more"),
        ({"optimizer": {"warmup": "2"}}, "^`warmup` must be a finite number, 0 or more"),
        ({"optimizer": {"ema": 2.0}}, r"^`ema` must be a number in \(0, 1\); received 2.0"),
        ({"optimizer": {"weight_decay": "x"}}, "^`weight_decay` must be a finite number, 0 or more"),
        ({"optimizer": {"foo": 1}}, "^`optimizer`: training.optimizer does not take these arguments"),
        ({"data": {"name": "digits", "path": "/x"}}, "^`data`: digits takes no path; received '/x'"),
        ({"data": {"name": "digits", "dark": 1}}, "^`data`: digits does not take these arguments"),
        ({"backbone": {"name": "small_cnn", "foo": 1}}, "^`backbone`: small_cnn does not take these arguments"),
        ({"backbone": {"name": "ResNet50", "foo": 1}}, "^`backbone`: ResNet50 does not take these arguments"),
        ({"backbone": {"name": "small_cnn", "width": "x"}}, "^`width` must be a whole number, 1 or more"),
        ({"backbone": {"name": "small_cnn", "blocks": 99}}, "^`blocks` must be a whole number from 1 to 3"),
    ],
)
def test_a_wrong_entry_is_told_by_its_name(changes, said):
    with pytest.raises(ValueError, match=said):
        training.assemble(RunConfig.from_dict({**SMALL, **changes}))


def test_what_may_be_said_in_a_table_still_may():
    config = RunConfig.from_dict(
        {
            **SMALL,
            "loss": {"name": "CrossBatchMemory", "loss": {"name": "Contrastive", "miner": "Hard"}, "memory_size": 32},
            "optimizer": {"warmup_epochs": 0.1, "clipnorm": 0, "ema": 0.9},
            "interpolation": {"epsilon": 0.5, "random": True},
            "precision": "mixed_bfloat16",
        }
    )
    model = training.assemble(config).model
    assert (
        isinstance(model.loss_function.loss, losses.Contrastive) and type(model.loss_function.miner).__name__ == "Hard"
    )
    options = assembly.image_options(RunConfig(crop={"scale": [0.2, 1.0]}))
    assert options["crop"] == RandomCrop(scale=(0.2, 1.0))


def test_a_net_has_no_more_blocks_than_its_images_have_sizes():
    assert backbones.small_cnn(32, width=1, blocks=5).output_shape == (None, 16)
    with pytest.raises(ValueError, match=r"^`blocks` must be a whole number from 1 to 5; received 6"):
        backbones.small_cnn(32, blocks=6)


def test_a_rank_that_no_validation_image_has_is_refused_before_training(tmp_path):
    """Before, no epoch was ever the best one, and `averaging` ended in a KeyError after the training."""
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    parts = [
        datasets.ImageSet(np.repeat([0, 1], len(part) // 2), ["a", "b"], part)
        for part in (images[:12], images[12:18], images[18:])
    ]
    config = RunConfig.from_dict({**SMALL, "classes": 2, "monitor": "recall@8"})
    with pytest.raises(ValueError, match=r"^`monitor` must be at a rank up to 5.* 'recall@8' with 6 validation images"):
        training.train(config, tmp_path / "run", splits=datasets.Splits(*parts), verbose=0)
    stages._check_monitor(config.replace(monitor="recall@4"), parts[1])
    stages._check_monitor(config.replace(monitor="map@r"), parts[1])


def test_a_folder_that_cannot_be_listed_for_a_while_does_not_end_the_servers_watch(monkeypatch, caplog):
    served = ModelDirectory.__new__(ModelDirectory)
    served.directory, served.current = "models/shop", type("Version", (), {"number": 3})

    def away(directory):
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr("tf_detreg.serving.model.versions", away)
    assert served.refresh() is False and "version 3 keeps serving" in caplog.text

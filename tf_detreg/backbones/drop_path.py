"""Drop path: in training, residual branches of a backbone are left out at random, whole for an image."""

from __future__ import annotations

import keras

from tf_detreg import checks
from tf_detreg.backbones.efficientnet_lite0 import DROP_CONNECT
from tf_detreg.backbones.foreign import ForeignBackbone

_RATE = "drop_connect_rate"


def with_drop_path(backbone: keras.layers.Layer, rate: float) -> keras.layers.Layer:
    """Return a backbone with another rate of drop path; its weights are the same.

    The rate rises from 0 at the first block to `rate` at the last. EfficientNet-Lite0 has 0.2 by itself. keras-hub's
    DINOv2 and DINOv3 have an argument for it, too, but version 0.29 fails in training with it.

    Args:
        backbone: As `backbones.build` makes it from a name, before pooling.
        rate: From 0 (none) to below 1.

    Raises:
        ValueError: If the rate is out of range, or the backbone has no drop path that can be set.

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """
    rate = checks.within("drop_path", rate, 0, 1, "[)")
    body = backbone.body if isinstance(backbone, ForeignBackbone) else backbone
    config = body.get_config() if isinstance(body, keras.Model) else {}
    if body.name == "efficientnet_lite0" and "layers" in config:
        for layer in config["layers"]:
            if layer["class_name"] == "Dropout":
                layer["config"]["rate"] *= rate / DROP_CONNECT
        made = type(body).from_config(config)
        made.set_weights(body.get_weights())
        return made
    if _RATE not in config:
        raise checks.invalid(
            "drop_path",
            "be None but for efficientnet_lite0 and keras-cv's EfficientNetLite",
            f"{rate} for {backbone.name}",
        )
    made = type(body).from_config({**config, _RATE: float(rate)})
    made.set_weights(body.get_weights())
    if body is backbone:
        return made
    options = {key: value for key, value in backbone.get_config().items() if key != "body"}
    return type(backbone)(made, **options)

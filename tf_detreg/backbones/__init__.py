"""Feature extractors: `keras.Model`s from images (B, H, W, 3) with values 0..255 to features (B, F)."""

from tf_detreg.backbones.build import build
from tf_detreg.backbones.foreign import ForeignBackbone
from tf_detreg.backbones.freezing import freeze_batch_norm, leaf_layers, unfreeze
from tf_detreg.backbones.pooling import POOLINGS, GeM, pool
from tf_detreg.backbones.scaling import SCALINGS, PixelScaling
from tf_detreg.backbones.small_cnn import small_cnn

__all__ = [
    "POOLINGS",
    "SCALINGS",
    "ForeignBackbone",
    "GeM",
    "PixelScaling",
    "build",
    "freeze_batch_norm",
    "leaf_layers",
    "pool",
    "small_cnn",
    "unfreeze",
]

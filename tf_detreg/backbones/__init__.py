"""Feature extractors: `keras.Model`s from images (B, H, W, 3) with values 0..255 to features (B, F)."""

from tf_detreg.backbones.build import build, preset_image_size
from tf_detreg.backbones.foreign import ForeignBackbone
from tf_detreg.backbones.freezing import freeze_batch_norm, leaf_layers, unfreeze
from tf_detreg.backbones.hub import Preset, describe, presets
from tf_detreg.backbones.pooling import POOLINGS, GeM, TokenPool, pool
from tf_detreg.backbones.scaling import SCALINGS, PixelScaling
from tf_detreg.backbones.small_cnn import small_cnn

__all__ = [
    "POOLINGS",
    "SCALINGS",
    "ForeignBackbone",
    "GeM",
    "PixelScaling",
    "Preset",
    "TokenPool",
    "build",
    "describe",
    "freeze_batch_norm",
    "leaf_layers",
    "pool",
    "preset_image_size",
    "presets",
    "small_cnn",
    "unfreeze",
]

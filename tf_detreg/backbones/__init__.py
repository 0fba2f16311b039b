"""Feature extractors: `keras.Model`s from images (B, H, W, 3) with values 0..255 to features (B, F)."""

from tf_detreg.backbones.blocks import blocks
from tf_detreg.backbones.build import build, preset_image_size
from tf_detreg.backbones.fine_tuning import restrict
from tf_detreg.backbones.foreign import ForeignBackbone
from tf_detreg.backbones.freezing import freeze_batch_norm, freeze_until, leaf_layers, unfreeze
from tf_detreg.backbones.hub import Preset, describe, presets
from tf_detreg.backbones.lora import enable_lora, has_lora, load_adapter, merge_lora, save_adapter
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
    "blocks",
    "build",
    "describe",
    "enable_lora",
    "freeze_batch_norm",
    "freeze_until",
    "has_lora",
    "leaf_layers",
    "load_adapter",
    "merge_lora",
    "pool",
    "preset_image_size",
    "presets",
    "restrict",
    "save_adapter",
    "small_cnn",
    "unfreeze",
]

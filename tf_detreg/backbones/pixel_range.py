"""Notice images whose pixels run from 0 to 1, where 0 to 255 are wanted."""

import threading
import warnings

import numpy as np
import tensorflow as tf

from tf_detreg._compat import compiled_by_xla

MESSAGE = (
    "The images have pixel values from {low:.3g} to {high:.3g}; values from 0 to 255 are wanted. Backbones of "
    "tf_detreg scale by themselves, so a model learns next to nothing from images that were scaled before: multiply by "
    "255, or leave the scaling out."
)


class PixelRange:
    """Warn once if images are scaled already.

    The first batch that is not black decides. Inside a graph the batch is looked at on the host; where XLA compiles the
    step nothing is looked at, as it has no way back to Python.

    Example:
        >>> watch = PixelRange()
        >>> watch(tf.fill((1, 2, 2, 3), 128.0))
        >>> watch.decided
        True
    """

    def __init__(self) -> None:
        self.decided = False
        self._lock = threading.Lock()

    def __call__(self, images: tf.Tensor) -> None:
        """Look at a batch `(B, H, W, C)`; features `(B, F)` have no range."""
        if self.decided or len(images.shape) != 4 or compiled_by_xla():
            return
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        if tf.executing_eagerly():
            if images.shape.num_elements():
                self._look(images.numpy().min(), images.numpy().max())
            return
        # Of no image the smallest value is infinite, which decides nothing.
        tf.numpy_function(self._look, [tf.reduce_min(images), tf.reduce_max(images)], tf.bool)

    def _look(self, low: np.ndarray, high: np.ndarray) -> np.bool_:
        with self._lock:
            if not self.decided and np.isfinite(low) and np.isfinite(high) and (low or high):
                self.decided = True
                if low >= -1 and high <= 1:
                    warnings.warn(MESSAGE.format(low=float(low), high=float(high)), UserWarning, stacklevel=2)
        return np.bool_(self.decided)

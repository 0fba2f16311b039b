r"""Density of images under an invertible head.

With the head's bijector :math:`g` and :math:`y = g(z)`,

.. math::
    \log p(z) = \log \mathcal N\big(g(z);\, \mu,\, \mathrm{diag}(\sigma^2)\big) + \log |\det \partial g / \partial z|,

where :math:`\mu` and :math:`\sigma` are the mean and the standard deviation of :math:`y` over the gallery's items.

Reference:
    Kirichenko, Izmailov, Wilson: Why normalizing flows fail to detect out-of-distribution data. NeurIPS 2020.
"""

from typing import Any

import numpy as np


class FlowDensity:
    """Log-densities of a set of images under a flow head, for `"density"` of `open_set` and `calibrate`.

    Args:
        outputs: (N, dim) y, the flow's outputs before they are normalized.
        log_determinants: (N,) log |det ∂g/∂z|.

    Example:
        >>> density = FlowDensity(np.array([[0.0], [2.0], [9.0]]), np.zeros(3))
        >>> density(np.array([0, 1])).round(2).tolist()
        [-1.42, -1.42, -32.92]
    """

    def __init__(self, outputs: np.ndarray, log_determinants: np.ndarray) -> None:
        self.outputs = np.asarray(outputs, np.float64)
        self.log_determinants = np.asarray(log_determinants, np.float64)

    def __call__(self, gallery: np.ndarray) -> np.ndarray:
        """Return (N,) log p of all images, with the mean and variance of the images in the rows `gallery`."""
        mean, deviation = self.outputs[gallery].mean(axis=0), np.maximum(self.outputs[gallery].std(axis=0), 1e-6)
        standard = (self.outputs - mean) / deviation
        log_normal = -0.5 * (standard**2 + np.log(2 * np.pi)) - np.log(deviation)
        return np.asarray(log_normal.sum(axis=1) + self.log_determinants)

    @classmethod
    def of_head(cls, head: Any, features: np.ndarray, batch_size: int = 1024) -> "FlowDensity":
        """Run a flow head on features.

        Args:
            head: A built flow head, such as `heads.RealNVP`.
            features: (N, F).
            batch_size: Default 1024.

        Raises:
            ValueError: If the head is not invertible.
        """
        if not hasattr(head, "bijector") or not hasattr(head, "flow"):
            raise ValueError(f"`head`={head.name!r} is not invertible: only a flow head has a density.")
        outputs, determinants = [], []
        for start in range(0, len(features), batch_size):
            y, log_scales = head.flow(
                head.project(features[start : start + batch_size], training=False), training=False
            )
            total = sum(np.asarray(scale, np.float64).sum(axis=-1) for scale in log_scales)
            outputs.append(np.asarray(y))
            determinants.append(np.broadcast_to(total, len(y)))
        return cls(np.concatenate(outputs), np.concatenate(determinants))

    @classmethod
    def of(cls, embedder: Any, images: Any) -> "FlowDensity":
        """Run an embedder whose last layer is a flow head on an `ImageSet`.

        Raises:
            ValueError: If the embedder has no such head.
        """
        import keras

        from tf_detreg.retrieval.embedding import embed

        heads = [layer for layer in embedder.layers if hasattr(layer, "bijector") and hasattr(layer, "flow")]
        if not heads:
            raise ValueError(f"`embedder`={embedder.name!r} has no flow head: only an invertible head has a density.")
        return cls.of_head(heads[-1], embed(keras.Model(embedder.inputs, heads[-1].input), images).embeddings)

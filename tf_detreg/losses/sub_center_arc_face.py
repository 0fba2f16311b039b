"""Sub-center ArcFace: several centers per class, the nearest counts."""

from typing import Any

import keras

from tf_detreg.losses.arc_face import ArcFace


@keras.saving.register_keras_serializable("tf_detreg")
class SubCenterArcFace(ArcFace):
    r"""Sub-center ArcFace loss.

    `ArcFace` in which `cos θ_ic` is the largest over the K sub-centers of class c, so that wrongly labeled images can
    gather around a sub-center of their own.

    Paper settings: K = 3, σ = 64, m = 0.5 radians.
    Other code: pytorch-metric-learning's `SubCenterArcFaceLoss` is equal, with the margin in degrees.

    Args:
        num_classes: Number of classes C.
        dim: Size of an embedding. Default None: taken from the first call.
        proxies_per_class: m; K, the sub-centers. Default 3.
        scale: σ. Default 64.0.
        margin: m, in radians, below π. Default 0.5.
        initializer: Of the proxies. Default None: Kaiming normal, fan-out.
        name, dtype, trainable: As in `keras.layers.Layer`. Computation is in float32, or float64 if asked.

    Call arguments:
        labels: Integers `(B,)` or `(B, 1)`.
        embeddings: Floats `(B, dim)`; normalized inside.

    Raises:
        ValueError: For labels of a wrong type, shape or range.

    Example:

    >>> import numpy as np
    >>> loss = SubCenterArcFace(num_classes=3, dim=2)
    >>> near, far, label = np.array([[0.8, 0.6]]), np.array([[-0.6, 0.8]]), np.array([0])
    >>> _ = loss(label, near)
    >>> _ = loss.proxies.assign([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    >>> [round(float(loss(label, x)), 3) for x in (near, far)]
    [11.878, 109.446]

    Reference: Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces", ECCV 2020.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        proxies_per_class: int = 3,
        scale: float = 64.0,
        margin: float = 0.5,
        initializer: Any = None,
        *,
        name: str | None = None,
        dtype: Any = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(
            num_classes, dim, proxies_per_class, scale, margin, initializer, name=name, dtype=dtype, trainable=trainable
        )

r"""Error rates of scores against a threshold: ROC, AUC, EER and rates at a fixed false-accept rate.

A pair (or a query) is accepted when its score reaches the threshold. With weights :math:`w` that sum to one among the
genuine and among the impostor scores,

.. math::
    \mathrm{FAR}(t) = \sum_{i \in \text{impostor}} w_i [s_i \ge t], \qquad
    \mathrm{TAR}(t) = \sum_{i \in \text{genuine}} w_i [s_i \ge t].

FAR is also called FMR (false-match rate); 1 − TAR is FRR or FNMR (false-non-match rate).

Reference:
    ISO/IEC 19795-1: Biometric performance testing and reporting (the terms); Fawcett, An introduction to ROC analysis,
    Pattern Recognition Letters 27, 2006 (the curve and its area).
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Roc:
    """A ROC curve: one point a distinct score, from "nothing accepted" to "everything accepted".

    Args:
        thresholds: (n,) descending; the first is infinity.
        far: (n,) ascending from 0 to 1.
        tar: (n,) ascending from 0 to 1.
    """

    thresholds: np.ndarray
    far: np.ndarray
    tar: np.ndarray

    @property
    def auc(self) -> float:
        """Return the area under the curve: the chance that a genuine score is above an impostor's, ties half."""
        return float(np.trapezoid(self.tar, self.far))

    @property
    def eer(self) -> float:
        """Return the equal-error rate: where FAR = 1 − TAR on the curve, straight between its points."""
        gap = self.far + self.tar - 1.0
        after = int(np.searchsorted(gap, 0.0))
        if after == 0:
            return float(self.far[0])
        before = after - 1
        step = -gap[before] / (gap[after] - gap[before])
        return float(self.far[before] + step * (self.far[after] - self.far[before]))

    def at_far(self, far: float) -> tuple[float, float]:
        """Return (threshold, TAR) of the lowest threshold whose FAR is at most `far`.

        The threshold is infinite where even the highest score would be accepted too often.
        """
        last = int(np.searchsorted(self.far, far * (1 + 1e-12), side="right")) - 1
        return float(self.thresholds[last]), float(self.tar[last])


def roc(
    genuine: np.ndarray,
    impostor: np.ndarray,
    genuine_weights: np.ndarray | None = None,
    impostor_weights: np.ndarray | None = None,
) -> Roc:
    """Return the ROC curve of two sets of scores.

    Args:
        genuine: (G,) scores of what should be accepted.
        impostor: (I,) scores of what should not.
        genuine_weights: (G,) not negative. Default None: all equal.
        impostor_weights: (I,). Default None: all equal.

    Example:
        >>> curve = roc(np.array([0.9, 0.8, 0.3]), np.array([0.5, 0.2]))
        >>> round(curve.auc, 4), curve.at_far(0.0)
        (0.8333, (0.8, 0.6666666666666666))
    """
    scores = np.concatenate([genuine, impostor])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    shares = []
    for weights, begin, size in ((genuine_weights, 0, len(genuine)), (impostor_weights, len(genuine), len(impostor))):
        every = np.zeros(len(scores))
        every[begin : begin + size] = 1.0 if weights is None else weights
        reached = np.cumsum(every[order])[last]
        shares.append(np.concatenate([[0.0], reached / reached[-1]]))
    return Roc(np.concatenate([[np.inf], scores[last]]), shares[1], shares[0])

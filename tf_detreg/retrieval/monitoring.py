r"""Drift: are the scores of new queries still those that a threshold was fitted on?

The population stability index over bins of the reference's deciles, with shares :math:`q_b` of the reference and
:math:`p_b` of the new queries, is

.. math:: \mathrm{PSI} = \sum_b (p_b - q_b) \ln (p_b / q_b).

Below 0.1 nothing has changed that matters, above 0.25 the threshold should be fitted again: rules of thumb of credit
scoring. Of n queries from an unchanged population it is about (bins − 1) / n, so that a few queries say nothing.

Reference:
    Siddiqi: Credit Risk Scorecards. Wiley, 2006.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks
from tf_detreg.retrieval import intervals
from tf_detreg.retrieval.decision import Decision
from tf_detreg.retrieval.report import plain_json

WATCH, REFIT = 0.1, 0.25
LEAST_QUERIES = 100


@dataclasses.dataclass(frozen=True)
class Drift:
    """Result of `retrieval.monitor`.

    Args:
        queries: How many there were.
        stability: The population stability index against the known queries of the calibration.
        unknown: Share of queries that the decision does not accept.
        interval: 95 % interval of `unknown`.
        unknown_at_calibration: The same of the known queries of the calibration.
        verdict: `"too few queries"`, `"stable"`, `"watch"` or `"fit again"`.
    """

    queries: int
    stability: float
    unknown: float
    interval: tuple[float, float]
    unknown_at_calibration: float
    verdict: str

    def to_json(self) -> str:
        """Return JSON text."""
        return plain_json(self)

    def summary(self) -> str:
        """Return the numbers and what follows from them."""
        low, high = self.interval
        advice = {
            "too few queries": f"Too few queries to say anything: give {LEAST_QUERIES} or more.",
            "stable": "The scores are those that the threshold was fitted on.",
            "watch": "The scores have moved a little; look again soon.",
            "fit again": "The scores have moved: fit the threshold again on queries like these (`tf-detreg "
            "calibrate`).",
        }[self.verdict]
        return (
            f"{self.queries:,} queries. Population stability index {self.stability:.3f} ({self.verdict}). Not in the "
            f"catalog: {100 * self.unknown:.1f} % ({100 * low:.1f} – {100 * high:.1f}), of known queries at "
            f"calibration "
            f"{100 * self.unknown_at_calibration:.1f} %. {advice}"
        )


def monitor(decision: Decision, scores: ArrayLike) -> Drift:
    """Compare the scores of new queries with those of the known queries that a decision was fitted on.

    Args:
        decision: The decision.
        scores: (Q,) its score of each new query: with `"nearest"`, the best cosine.

    Returns:
        A `Drift`. The reference holds known queries alone: where many new queries are of classes that are not in the
        catalog, the index rises too.

    Raises:
        ValueError: If `decision` is none, or the scores are not finite numbers of shape (Q,).

    Example:
        >>> from tf_detreg import retrieval
        >>> points = np.repeat(np.eye(30), 40, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((1200, 30))
        >>> decision = retrieval.calibrate(points, np.repeat(np.arange(30), 40), target=0.01, resamples=100)
        >>> monitor(decision, np.full(500, 0.3)).verdict
        'fit again'
    """
    checks.instance("decision", decision, Decision, "a retrieval.Decision")
    scores = np.asarray(scores)
    if scores.ndim != 1 or not len(scores) or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise ValueError(f"`scores` must be finite numbers of shape (Q,), at least one; received shape {scores.shape}.")
    bins = len(decision.quantiles) + 1
    # Equal quantiles (many equal scores) leave bins that no score can be in; their shares go to the next one.
    edges, first = np.unique(decision.quantiles, return_index=True)
    expected = np.diff(np.concatenate([[0], first + 1, [bins]])) / bins
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(expected))
    shares = (counts + 0.5) / (len(scores) + 0.5 * len(counts))
    stability = float(((shares - expected) * np.log(shares / expected)).sum())
    unknown = int((~decision.accepted(scores)).sum())
    return Drift(
        queries=len(scores),
        stability=stability,
        unknown=unknown / len(scores),
        interval=intervals.of_share(unknown, len(scores)),
        unknown_at_calibration=1 - decision.accepts,
        verdict=_verdict(len(scores), stability),
    )


def _verdict(queries: int, stability: float) -> str:
    if queries < LEAST_QUERIES:
        return "too few queries"
    return "stable" if stability < WATCH else "watch" if stability < REFIT else "fit again"

r"""Calibration: the threshold that keeps a promise on classes that were never seen, and probabilities of scores.

Let :math:`F(t)` be the share of queries of unknown classes whose score reaches :math:`t`. The point estimate is the
lowest :math:`t` with :math:`F(t) \le` target on the given C classes; other classes exceed the target about as often as
not. The upper bound is the lowest :math:`t` for which this holds in a share `confidence` of bootstrap draws of
:math:`C/2` of the classes: half of them, because both the C classes that were seen and the C others on which the
promise will be checked are samples, and the variances of two samples add up.

A false accept is of two classes, the query's and that of the item it was taken for, and both were drawn. It counts as
often as the product of how often they were; draws of the queries' classes alone miss that one item, or one class, can
attract the queries of many.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import checks, extras
from tf_detreg.retrieval import intervals, trials
from tf_detreg.retrieval.decision import Decision, Measurement
from tf_detreg.retrieval.verification import LEAST_ERRORS

BOUNDS = ("upper", "point")
METHODS = ("auto", "isotonic", "logistic")
_ISOTONIC_FROM = 1_000  # records; below, a step function follows the noise
_KNOTS = 48
_BINS = 10
_FEW_CLASSES = 20
_LEAST_CLASSES = 4  # of which half are two, as many as a false accept needs


def calibrate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    target: float = 0.01,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    score: str = "nearest",
    bound: str = "upper",
    confidence: float = 0.95,
    method: str = "auto",
    unknown_share: float = 0.5,
    neighbors: int = 5,
    density: Callable[[np.ndarray], np.ndarray] | None = None,
    test_density: Callable[[np.ndarray], np.ndarray] | None = None,
    fingerprint: str | None = None,
    folds: int = trials.FOLDS,
    resamples: int = 1000,
    seed: int = 0,
) -> Decision:
    """Find the threshold from which on a match counts, and a probability for each score.

    Fit it on validation classes, which neither training nor the test has seen, and report it on test classes.

    Args:
        embeddings: (N, dim) vectors of the validation classes.
        labels: (N,).
        target: Largest share of queries of unknown classes that may be accepted. Default 0.01.
        test: (embeddings, labels) of other classes to report on. Default None.
        score: Default `"nearest"`, the cosine of the nearest item, which an index, the server and exported models
            can use; or another score of `open_set`.
        bound: `"upper"`, the default: as many other classes keep the target with probability `confidence`. `"point"`:
            the classes given keep it, others in about half of all cases.
        confidence: Default 0.95.
        method: How probabilities follow scores: `"isotonic"`, `"logistic"`, or `"auto"`, the default: isotonic from
            1,000 records on.
        unknown_share: Share of queries of unknown classes that the probabilities assume. Default 0.5.
        neighbors: k of `"mean"` and `"normalized"`. Default 5.
        density: A `FlowDensity` of the images, for `score="density"`. Default None.
        test_density: The same of the test images.
        fingerprint: Of the model, as `retrieval.fingerprint` makes it. Default None.
        folds: Into which classes are dealt to be held out. Default 5.
        resamples: Of the bootstrap over classes. Default 1000.
        seed: Of folds and bootstrap. Default 0.

    Returns:
        A `Decision`.

    Raises:
        ValueError: If vectors or labels do not fit, there are too few queries or classes for the target, or no
            threshold reaches it.

    Example:
        >>> points = np.repeat(np.eye(30), 40, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((1200, 30))
        >>> decision = calibrate(points, np.repeat(np.arange(30), 40), target=0.01, resamples=100)
        >>> decision.fitted.false_accepts <= 0.01, decision.fitted.accepted_right
        (True, 1.0)

    Reference:
        Zadrozny, Elkan: Transforming classifier scores into accurate multiclass probability estimates. KDD 2002.
    """
    confidence = checks.within("confidence", confidence, 0, 1, "(]")
    _refuse_options(bound, method, unknown_share)
    resamples = checks.integer("resamples", resamples, 1)
    seed = checks.integer("seed", seed, 0)
    unit, classes, names = trials.checked(embeddings, labels)
    target = checked_target(target, len(unit))
    _refuse_few_classes(len(names), bound)
    if test is not None:
        _check_test(test, unit.shape[1])
    neighbors, folds = checks.integer("neighbors", neighbors, 1), checks.integer("folds", folds, 2)
    done = trials.run(unit, classes, (score,), neighbors, density, folds, seed)
    if not (done.has_positive & done.right).any():
        raise ValueError(
            "No query finds its class: every class has one image, or the model finds nothing. Nothing to fit."
        )
    count = len(names)
    drawn = draws(count, max(count // 2, 2), resamples, seed)
    threshold = lowest_threshold(done, score, target, np.ones((1, count)), confidence)
    if bound == "upper":
        threshold = max(threshold, lowest_threshold(done, score, target, drawn, confidence))
    knots = _probabilities(done, score, unknown_share, method)
    known = done.known[score][done.has_positive]
    notes = (
        ()
        if count >= _FEW_CLASSES
        else (f"{count} classes are few to say anything about others: intervals over them are rough.",)
    )
    decision = Decision(
        score=score,
        threshold=threshold,
        target=target,
        bound=bound,
        confidence=confidence,
        interval=intervals.central(shares(done, done.unknown[score] >= threshold, drawn)),
        fitted=_measure(done, score, threshold, knots, unknown_share, drawn),
        class_names=tuple(str(name) for name in names),
        scores=tuple(knots[0].tolist()),
        probabilities=tuple(knots[1].tolist()),
        unknown_share=unknown_share,
        quantiles=tuple(np.quantile(known, np.linspace(0.1, 0.9, 9)).tolist()),
        accepts=float((known >= threshold).mean()),
        neighbors=neighbors,
        fingerprint=fingerprint,
        notes=notes,
    )
    if test is None:
        return decision
    return dataclasses.replace(
        decision, test=measure(decision, *test, density=test_density, resamples=resamples, seed=seed, folds=folds)
    )


def measure(
    decision: Decision,
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    density: Callable[[np.ndarray], np.ndarray] | None = None,
    folds: int = trials.FOLDS,
    resamples: int = 1000,
    seed: int = 0,
) -> Measurement:
    """Measure what a decision does on other classes than those it was fitted on.

    Args:
        decision: The decision.
        embeddings: (N, dim) vectors.
        labels: (N,).
        density: A `FlowDensity` of the images, where the decision's score is `"density"`. Default None.
        folds: Into which classes are dealt to be held out. Default 5.
        resamples: Of the bootstrap over classes. Default 1000.
        seed: Of folds and bootstrap. Default 0.

    Raises:
        ValueError: If `decision` is none, or vectors or labels do not fit.
    """
    checks.instance("decision", decision, Decision, "a retrieval.Decision")
    seed = checks.integer("seed", seed)
    unit, classes, names = trials.checked(embeddings, labels)
    done = trials.run(
        unit, classes, (decision.score,), decision.neighbors, density, checks.integer("folds", folds, 2), seed
    )
    drawn = draws(len(names), len(names), checks.integer("resamples", resamples, 1), seed)
    knots = np.asarray(decision.scores), np.asarray(decision.probabilities)
    return _measure(done, decision.score, decision.threshold, knots, decision.unknown_share, drawn)


def _refuse_options(bound: str, method: str, unknown_share: float) -> None:
    for name, value, allowed in (("bound", bound, BOUNDS), ("method", method, METHODS)):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; received {value!r}.")
    if isinstance(unknown_share, bool) or not isinstance(unknown_share, int | float) or not 0 <= unknown_share < 1:
        raise ValueError(f"`unknown_share` must be a number from 0 to below 1; received {unknown_share!r}.")


def enough_images(images: int, target: float) -> bool:
    """Return whether a false-accept rate can be stated from so many images: ten are expected.

    Example:
        >>> enough_images(1000, 0.01), enough_images(999, 0.01)
        (True, False)
    """
    return images * target >= LEAST_ERRORS - 1e-9


def _rounded_up(share: float) -> float:
    """Return the next number of two digits: what an error names must be allowed.

    Example:
        >>> _rounded_up(10 / 112), _rounded_up(0.002)
        (0.09, 0.002)
    """
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return round(math.ceil(share / unit - 1e-6) * unit, 12)


def checked_target(target: float, images: int) -> float:
    """Return a target that so many validation images can state.

    Args:
        target: Largest share of queries of unknown classes that may be accepted.
        images: How many there are to fit on.

    Raises:
        ValueError: If it is no share, or takes more images.

    Example:
        >>> checked_target(0.1, 100)
        0.1
    """
    target = checks.within("target", target, 0, 1, "(]")
    if not enough_images(images, target):
        stated = f"{_rounded_up(LEAST_ERRORS / images):g} or more" if images >= LEAST_ERRORS else "nothing"
        raise ValueError(
            f"`target`={target:g} needs at least {int(np.ceil(LEAST_ERRORS / target)):,} images (ten false accepts); "
            f"there are {images:,}, from which {stated} can be stated."
        )
    return target


def _refuse_few_classes(count: int, bound: str) -> None:
    if bound == "upper" and 1 < count < _LEAST_CLASSES:
        raise checks.invalid(
            "labels",
            f"hold {_LEAST_CLASSES} classes or more to say anything about others (`bound`='upper')",
            f"{count}",
            "`bound`='point' keeps the target on the classes given.",
        )


def _check_test(test: object, dim: int) -> None:
    if not isinstance(test, tuple | list) or len(test) != 2:
        raise checks.invalid("test", "be (embeddings, labels)", type(test).__name__)
    shape = np.shape(test[0])
    if len(shape) == 2 and shape[1] != dim:
        raise checks.invalid("test", f"hold vectors of {dim} dimensions, as `embeddings` do", f"shape {shape}")


def lowest_threshold(done: trials.Trials, score: str, target: float, drawn: np.ndarray, confidence: float) -> float:
    """Return the lowest threshold that keeps the target in a share `confidence` of draws of classes.

    Args:
        done: The trials.
        score: Which score.
        target: Largest share of unknown queries that may be accepted.
        drawn: (n, C) how often each class was drawn; one row of ones for the point estimate.
        confidence: Which quantile of the draws' thresholds to take.

    Raises:
        ValueError: If it accepts nothing.
    """
    order = np.argsort(-done.unknown[score], kind="stable")
    values, query, item = done.unknown[score][order], done.classes[order], done.confused[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    # What is accepted at each distinct score; accepting nothing is a threshold just above the highest.
    steps = np.concatenate([[np.nextafter(values[0], np.inf)], values[last]])
    found = np.empty(len(drawn))
    for n, weights in enumerate(drawn):
        reached = np.cumsum(weights[query] * weights[item])
        kept = np.searchsorted(reached[last], target * weights[query].sum() * (1 + 1e-12), side="right")
        found[n] = steps[kept]
    threshold = float(np.quantile(found, confidence, method="higher")) if len(found) > 1 else float(found[0])
    known = done.known[score][done.has_positive & done.right]
    if not (known >= threshold).any():
        far = float((done.unknown[score] >= known.max()).mean())
        raise ValueError(
            f"No threshold reaches `target`={target:g}: {100 * far:.3g} % of the queries of unknown classes score as "
            f"high "
            f"as the best query of a known class ({known.max():.6f}). Are there equal images under different labels? "
            "`analysis.inspect` lists them."
        )
    return threshold


def draws(classes: int, size: int, resamples: int, seed: int) -> np.ndarray:
    """Draw classes with replacement.

    Args:
        classes: C.
        size: How many to draw each time.
        resamples: How often.
        seed: Of the draws.

    Returns:
        (resamples, C) weights of mean one.
    """
    drawn = np.random.default_rng(seed).multinomial(size, np.full(classes, 1 / classes), size=resamples)
    return np.asarray(drawn * (classes / size))


def shares(done: trials.Trials, accepted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the share of false accepts in each draw of classes.

    Args:
        done: The trials.
        accepted: (Q,) which unknown queries were accepted.
        drawn: (n, C) weights of the classes.
    """
    sizes = np.bincount(done.classes, minlength=drawn.shape[1])
    pairs, counts = np.unique(np.stack([done.classes, done.confused])[:, accepted], axis=1, return_counts=True)
    found = (drawn[:, pairs[0]] * drawn[:, pairs[1]]) @ counts / np.maximum(drawn @ sizes, 1e-12)
    return np.asarray(
        np.minimum(found, 1.0)
    )  # a product of weights may count a query more often than there are queries


def _measure(
    done: trials.Trials,
    score: str,
    threshold: float,
    knots: tuple[np.ndarray, np.ndarray],
    unknown_share: float,
    drawn: np.ndarray,
) -> Measurement:
    accepted = done.unknown[score] >= threshold
    known, right = done.known[score][done.has_positive], done.right[done.has_positive]
    error, bins = _reliability(*_records(done, score, unknown_share), knots)
    return Measurement(
        classes=int(done.classes.max()) + 1,
        queries=len(done.classes),
        gallery=done.gallery,
        false_accepts=float(accepted.mean()),
        interval=intervals.central(shares(done, accepted, drawn)),
        accepted_right=float((right & (known >= threshold)).mean()) if len(known) else float("nan"),
        accepted_wrong=float((~right & (known >= threshold)).mean()) if len(known) else float("nan"),
        calibration_error=error,
        reliability=bins,
    )


def _records(done: trials.Trials, score: str, unknown_share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, whether the nearest item is right, and weights, of all queries as known and as unknown ones."""
    asked = done.has_positive
    values = np.concatenate([done.known[score][asked], done.unknown[score]])
    right = np.concatenate([done.right[asked], np.zeros(len(done.classes), bool)])
    weights = np.concatenate(
        [
            np.full(asked.sum(), (1 - unknown_share) / max(asked.sum(), 1)),
            np.full(len(asked), unknown_share / len(asked)),
        ]
    )
    return values, right, weights


def _probabilities(done: trials.Trials, score: str, unknown_share: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return knots of the monotone map from score to probability."""
    values, right, weights = _records(done, score, unknown_share)
    values, right, weights = values[weights > 0], right[weights > 0], weights[weights > 0] / weights.max()
    if method == "auto":
        method = "isotonic" if len(values) >= _ISOTONIC_FROM else "logistic"
    grid = np.unique(np.quantile(values, np.linspace(0, 1, _KNOTS)))
    if right.all() or len(grid) < 2:
        return np.array([grid[0], grid[0] + 1.0]), np.full(2, float(np.average(right, weights=weights)))
    if method == "isotonic":
        with extras.needed("Calibration of a decision"):
            from sklearn.isotonic import IsotonicRegression

        least = 1.0 / (len(values) + 2)  # nothing is certain
        fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(values, right, weights)
        return grid, fitted.predict(grid)
    with extras.needed("Calibration of a decision"):
        from sklearn.linear_model import LogisticRegression

    mean, deviation = values.mean(), values.std()
    fitted = LogisticRegression(C=1e4).fit(((values - mean) / deviation)[:, None], right, weights)
    grid = np.linspace(grid[0], grid[-1], _KNOTS)
    slope, offset = max(float(fitted.coef_[0, 0]), 0.0), float(fitted.intercept_[0])
    return grid, 1 / (1 + np.exp(-(slope * (grid - mean) / deviation + offset)))


def _reliability(
    values: np.ndarray, right: np.ndarray, weights: np.ndarray, knots: tuple[np.ndarray, np.ndarray]
) -> tuple[float, tuple[tuple[float, float, float], ...]]:
    """Return the expected calibration error, and the bins of equal weight that it is summed over."""
    expected = np.interp(values, *knots)
    order = np.argsort(expected, kind="stable")
    bins: list[tuple[float, float, float]] = []
    reached = np.cumsum(weights[order]) / weights.sum()
    for part in np.split(order, np.searchsorted(reached, np.arange(1, _BINS) / _BINS)):
        if len(part) and (total := weights[part].sum()) > 0:
            stated, true = (float(np.average(column[part], weights=weights[part])) for column in (expected, right))
            bins.append((stated, true, float(total / weights.sum())))
    return float(sum(weight * abs(one - other) for one, other, weight in bins)), tuple(bins)

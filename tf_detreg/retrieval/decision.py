"""A decision: from which score on to believe a match, and how often that is wrong."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_detreg.files import read_json, write_text
from tf_detreg.retrieval.identity import same_model, short
from tf_detreg.retrieval.report import plain_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "decision.json"  # its name in a run's directory
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a threshold does on a set of classes, each image a query with and without its class in the gallery.

    Args:
        classes: Number of classes.
        queries: Number of images.
        gallery: Mean number of items in the gallery.
        false_accepts: Share of queries of classes that are not in the gallery that are accepted all the same.
        interval: 95 % interval of `false_accepts`, over classes.
        accepted_right: Share of queries of classes in the gallery that are accepted and whose nearest item is right.
        accepted_wrong: Share of these that are accepted and whose nearest item is wrong.
        calibration_error: Expected calibration error of the probabilities, in ten bins of equal weight.
        reliability: For each bin, (mean probability, share that was right, share of the weight).
    """

    classes: int
    queries: int
    gallery: int
    false_accepts: float
    interval: tuple[float, float]
    accepted_right: float
    accepted_wrong: float
    calibration_error: float
    reliability: tuple[tuple[float, float, float], ...]

    def sentence(self) -> str:
        """Return the numbers as a sentence."""
        low, high = self.interval
        return (
            f"{self.classes:,} classes, {self.queries:,} images, galleries of {self.gallery:,}: accepts "
            f"{100 * self.false_accepts:.2f} % ({100 * low:.2f} – {100 * high:.2f}) of queries of unknown classes; "
            f"of known "
            f"ones {100 * self.accepted_right:.2f} % rightly and {100 * self.accepted_wrong:.2f} % with a wrong class; "
            f"calibration error of the probabilities {100 * self.calibration_error:.2f} points."
        )


@dataclasses.dataclass(frozen=True)
class Decision:
    """A threshold on a score, what it promises, and what it was measured to do; `retrieval.calibrate` makes it.

    Args:
        score: Which score of `retrieval.open_set`; `"nearest"` is the cosine of the nearest item.
        threshold: A query (with `"nearest"`, a match) is accepted when its score reaches it.
        target: Share of queries of unknown classes that may be accepted.
        bound: `"upper"`: chosen so that as many other classes keep the target with probability `confidence`;
            `"point"`: so that the classes it was fitted on do.
        confidence: See `bound`.
        interval: Where the share of false accepts of as many other classes lies in 95 of 100 draws.
        fitted: The measurement on the classes it was fitted on.
        class_names: Those classes.
        scores: (n,) knots of the monotone map from score to probability, ascending.
        probabilities: (n,) the probability at each knot that the nearest item is of the query's class; straight
            between knots.
        unknown_share: Share of queries of unknown classes for which the probabilities hold.
        quantiles: Deciles of the scores of known queries when it was fitted, to watch for drift.
        accepts: Share of known queries that were accepted when it was fitted.
        neighbors: k of the score, where it has one.
        fingerprint: Of the model; None where it is not known.
        test: The measurement on other classes; None where there was none.
        notes: What a reader should know.

    Example:
        >>> points = np.repeat(np.eye(30), 40, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((1200, 30))
        >>> from tf_detreg import retrieval
        >>> decision = retrieval.calibrate(points, np.repeat(np.arange(30), 40), target=0.01, resamples=100)
        >>> decision.accepted(np.array([0.2, 0.9])).tolist()
        [False, True]
    """

    score: str
    threshold: float
    target: float
    bound: str
    confidence: float
    interval: tuple[float, float]
    fitted: Measurement
    class_names: tuple[str, ...]
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    unknown_share: float
    quantiles: tuple[float, ...]
    accepts: float
    neighbors: int = 5
    fingerprint: str | None = None
    test: Measurement | None = None
    notes: tuple[str, ...] = ()

    def accepted(self, scores: np.ndarray) -> np.ndarray:
        """Return which scores reach the threshold."""
        return np.asarray(scores) >= self.threshold

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability that the item found is of the query's class, 0..1, of the scores' shape."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)

    def refuse_other_model(self, fingerprint: str | None) -> None:
        """Raise if the decision is known to be another model's.

        Raises:
            ValueError: If both fingerprints are known and differ.
        """
        known = self.fingerprint
        if fingerprint is not None and known is not None and not same_model(fingerprint, known):
            raise ValueError(
                f"`decision` was fitted on another model ({short(known)!r}, this one is {short(fingerprint)!r}): its "
                "scores mean something else. Calibrate again: `tf-detreg calibrate RUN`."
            )

    def to_dict(self) -> dict[str, object]:
        """Return plain dictionaries, lists, numbers and strings."""
        return {"format": _FORMAT, **json.loads(plain_json(self))}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Decision":
        """Return the decision that `to_dict` wrote.

        Raises:
            ValueError: If it is none, or of a newer version.
        """
        try:
            known = dict(content)
            if known.pop("format") != _FORMAT:
                raise ValueError(f"format {content['format']!r} is of another version of tf_detreg")
            known["fitted"] = _measurement(known["fitted"])
            known["test"] = None if known["test"] is None else _measurement(known["test"])
            found = cls(**{name: _frozen(value) for name, value in known.items()})
            numbers = [found.threshold, found.target, *found.scores, *found.probabilities]
            if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers) or not found.scores:
                raise ValueError("a number is missing")
            if not all(0 <= x <= 1 for x in (found.target, *found.probabilities)):
                raise ValueError("a probability lies outside of 0..1")
            if not all(isinstance(x, str) for x in (found.score, found.fingerprint or "")):
                raise ValueError("a name is missing")
            if len(found.scores) != len(found.probabilities) or np.any(np.diff(found.scores) <= 0):
                raise ValueError("its probabilities do not fit its scores")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"This is no decision that tf_detreg wrote ({error}). Calibrate again.") from error
        return found

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the decision as JSON, atomically.

        Raises:
            OSError: If it cannot be written.
        """
        return pathlib.Path(write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Decision":
        """Read a decision that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged.
        """
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(f"There is no decision {str(path)!r}. `tf-detreg calibrate RUN` makes one.")
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{str(path)!r}: {error}") from error

    def summary(self) -> str:
        """Return a sentence on the threshold and its promise."""
        low, high = self.interval
        sure = f" in {100 * self.confidence:g} of 100 draws of as many classes" if self.bound == "upper" else ""
        return (
            f"A match counts from score {self.threshold:.4f} ({self.score}) on. Target: at most "
            f"{100 * self.target:g} % of "
            f"queries whose class is not in the gallery are accepted{sure}; expected of unseen classes: "
            f"{100 * low:.2f} – {100 * high:.2f} %."
        )

    def to_markdown(self) -> str:
        """Return the threshold, the target and the measured errors as Markdown."""
        lines = [self.summary(), "", f"Fitted on {self.fitted.sentence()}"]
        lines += [
            "",
            "Not measured on other classes." if self.test is None else f"On other classes: {self.test.sentence()}",
        ]
        return "\n".join([*lines, *(f"\nNote: {note}" for note in self.notes)]) + "\n"

    def plot_reliability(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw the share that was right against the probability; write it to `path` if there is one."""
        from tf_detreg.retrieval import decision_plots

        return decision_plots.reliability(self, path)


def decision_of(directory: str | os.PathLike[str]) -> Decision | None:
    """Read the decision of a run; None where it has none."""
    path = pathlib.Path(directory) / FILE
    return Decision.load(path) if path.is_file() else None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _measurement(content: Mapping[str, Any]) -> Measurement:
    return Measurement(**{name: _frozen(value) for name, value in content.items()})

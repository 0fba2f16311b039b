"""A decision as part of a graph: scores in, probabilities and acceptance out, by operations that LiteRT has."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_detreg.export.inference import fingerprint
from tf_detreg.index import Index
from tf_detreg.retrieval.decision import Decision

_LEAST_STEP = 1e-5  # of scores between knots: closer ones are no different scores in float32


def decision_for(embedder: keras.Model, gallery: object, decision: Decision | None) -> Decision | None:
    """Return the decision to export: the one given, else that of the index.

    Raises:
        ValueError: If it is another model's, or not on the nearest cosine.
    """
    if decision is None:
        decision = gallery.decision if isinstance(gallery, Index) else None
    if decision is None:
        return None
    if not isinstance(decision, Decision):
        raise ValueError(f"`decision` must be a `retrieval.Decision`; received {decision!r:.80}.")
    if decision.score != "nearest":
        raise ValueError(
            f"`decision` is on the score {decision.score!r}; an exported model can decide on `nearest` alone. "
            'Calibrate with score="nearest".'
        )
    decision.refuse_other_model(fingerprint(embedder))
    return decision


def outputs(decision: Decision | None) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return a function from scores (B, k) to the outputs `probabilities`, `accepted`; to none without a decision."""
    if decision is None:
        return lambda scores: {}
    scores, probabilities = _knots(decision)
    steps, rises = np.diff(scores), np.diff(probabilities)
    threshold = np.float32(decision.threshold)

    def decide(found: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = tf.clip_by_value((found[..., None] - scores[:-1]) / steps, 0.0, 1.0)
        return {
            "probabilities": probabilities[0] + tf.reduce_sum(parts * rises, axis=-1),
            "accepted": found >= threshold,
        }

    return decide


def facts(decision: Decision | None) -> dict[str, object]:
    """Return what `metadata.json` says about it."""
    if decision is None:
        return {}
    measured = decision.test or decision.fitted
    return {
        "decision": {
            "score": decision.score,
            "threshold": decision.threshold,
            "target": decision.target,
            "false_accepts": measured.false_accepts,
            "interval": list(measured.interval),
            "measured_on": "test classes" if decision.test else "the classes it was fitted on",
            "classes": measured.classes,
        }
    }


def _knots(decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    """Return knots in float32, moved apart where they are so close that the slope between them would overflow."""
    apart = _LEAST_STEP * np.arange(len(decision.scores))
    scores = np.maximum.accumulate(np.asarray(decision.scores) - apart) + apart
    return scores.astype(np.float32), np.asarray(decision.probabilities, np.float32)

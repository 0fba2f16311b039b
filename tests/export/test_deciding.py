"""A decision inside exported models: the same answers as in Python, in processes that know nothing of this package."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import export, retrieval
from tf_detreg.export import deciding
from tf_detreg.export.inference import fingerprint
from tf_detreg.export.verification import run_job
from tf_detreg.index import Index


@pytest.fixture(scope="module")
def decision(embedder, expected):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 10)
    points = rng.standard_normal((30, 16))[labels] + rng.standard_normal((300, 16))
    made = retrieval.calibrate(points, labels, target=0.05, resamples=20)
    # A threshold in the middle of what this embedder gives, so that both answers occur.
    scores = np.sort(expected @ expected.T, axis=1)[:, -5:]
    return dataclasses.replace(
        made,
        threshold=float(np.median(scores)),
        scores=tuple(np.linspace(scores.min(), scores.max(), 20).tolist()),
        probabilities=tuple(np.linspace(0.05, 0.9, 20).tolist()),
        fingerprint=fingerprint(embedder),
    )


@pytest.mark.parametrize("steep", [False, True])
def test_the_graph_gives_the_probabilities_of_python(decision, steep):
    if steep:  # isotonic regression leaves steps whose ends float32 cannot tell apart
        decision = dataclasses.replace(
            decision, scores=(-0.5, 0.2, 0.2 + 1e-9, 0.7, 0.7 + 1e-12), probabilities=(0.0, 0.1, 0.6, 0.8, 0.9)
        )
    scores = np.linspace(-1, 1, 401).astype(np.float32)
    scores = scores[(np.abs(scores - 0.2) > 1e-4) & (np.abs(scores - 0.7) > 1e-4)].reshape(1, -1)
    found = tf.function(deciding.outputs(decision))(scores)
    np.testing.assert_allclose(found["probabilities"], decision.probability(scores), atol=2e-2 if steep else 1e-5)
    np.testing.assert_array_equal(found["accepted"], scores >= np.float32(decision.threshold))
    constant = dataclasses.replace(decision, scores=(0.3, 0.3 + 1e-9), probabilities=(0.4, 0.4))
    np.testing.assert_allclose(deciding.outputs(constant)(tf.constant([0.0, 1.0]))["probabilities"], 0.4, atol=1e-6)


def test_a_saved_model_says_what_is_accepted(embedder, expected, images, encode, decision, tmp_path):
    index = Index(expected, fingerprint=fingerprint(embedder))
    index.decision = decision
    path = export.retrieval_saved_model(embedder, index, tmp_path / "search", k=5, warm_up=False)
    contents = np.array([encode(image) for image in images[:6]] + [b"no image"])
    names = ("scores", "probabilities", "accepted", "valid")
    found, answer = run_job(path, contents, engine="session", signature="serve_bytes", outputs=names)
    assert "tf_detreg" not in answer["modules"]
    np.testing.assert_allclose(found["scores"][:6], -np.sort(-expected[:6] @ expected.T, axis=1)[:, :5], atol=1e-5)
    assert found["valid"].tolist() == [True] * 6 + [False] and not found["scores"][6].any()
    np.testing.assert_allclose(found["probabilities"][:6], decision.probability(found["scores"][:6]), atol=1e-5)
    np.testing.assert_array_equal(found["accepted"][:6], found["scores"][:6] >= np.float32(decision.threshold))
    assert found["accepted"][:6].any() and not found["accepted"][:6].all()
    assert not found["accepted"][6].any() and not found["probabilities"][6].any()
    facts = json.loads((path / "assets.extra" / "metadata.json").read_text())["decision"]
    assert facts["threshold"] == decision.threshold and facts["target"] == 0.05 and facts["classes"] == 30


def test_a_phone_says_what_is_accepted(embedder, expected, images, decision, tmp_path):
    path = export.retrieval_litert(embedder, expected, tmp_path / "m.tflite", k=5, decision=decision)
    found, answer = run_job(
        path,
        images[:6].astype(np.float32),
        signature="serving_default",
        outputs=("scores", "probabilities", "accepted"),
    )
    assert "tensorflow" not in answer["modules"]
    np.testing.assert_allclose(found["probabilities"], decision.probability(found["scores"]), atol=1e-5)
    np.testing.assert_array_equal(found["accepted"], found["scores"] >= np.float32(decision.threshold))
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("metadata.json"))["decision"]["target"] == 0.05


def test_decisions_that_do_not_fit_are_refused(embedder, expected, decision, tmp_path):
    for change, message in (
        ({"fingerprint": "another"}, "another model"),
        ({"score": "margin"}, "can decide on `nearest` alone"),
    ):
        wrong = dataclasses.replace(decision, **change)
        with pytest.raises(ValueError, match=message):
            export.retrieval_saved_model(embedder, expected, tmp_path, decision=wrong)
        with pytest.raises(ValueError, match=message):
            export.retrieval_litert(embedder, expected, tmp_path / "m.tflite", decision=wrong)
    with pytest.raises(ValueError, match=r"must be a `retrieval\.Decision`"):
        export.retrieval_litert(embedder, expected, tmp_path / "m.tflite", decision=0.5)


def test_the_card_states_threshold_target_and_measured_error(embedder, decision, tmp_path):
    assert "No threshold was fitted" in export.model_card(embedder)
    assert "tf-detreg calibrate" in export.run_results(tmp_path)["decision"]
    decision.save(tmp_path / "decision.json")
    card = export.model_card(embedder, **export.run_results(tmp_path))
    assert f"{decision.threshold:.4f}" in card and "at most 5 %" in card and "Fitted on 30 classes" in card

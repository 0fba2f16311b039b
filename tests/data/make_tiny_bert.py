"""Writes tiny_bert/: a random two-layer BERT and what the transformers library makes of some sentences with it.

Needs `pip install torch transformers`; run as `python tests/data/make_tiny_bert.py`.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizer

SENTENCES = [
    "a photo of a cat",
    "A photo of a Café!",
    "cats, dogs and unbelievable zebras",
    "",
    "猫 cat $5 un-cat",
    "a cat " * 20,
]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["a", "photo", "of", "cat", "cafe", "dog", "and", "un", "the", ",", "!", "$", "-", "5", "猫"]
WORDS += ["##s", "##believ", "##able", *LETTERS, *(f"##{letter}" for letter in LETTERS)]


def main():
    folder = Path(__file__).with_name("tiny_bert")
    folder.mkdir(exist_ok=True)
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=32,
        layer_norm_eps=1e-12,
        initializer_range=0.5,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=32)
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    np.savez(
        folder / "expected.npz",
        sentences=np.array(SENTENCES),
        tokens=inputs["input_ids"].numpy(),
        vectors=torch.nn.functional.normalize(mean).numpy(),
    )


if __name__ == "__main__":
    main()

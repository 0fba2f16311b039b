"""Writes `retrieval_pml.npz`: what pytorch-metric-learning's calculator says about a few random embeddings.

pip install torch pytorch-metric-learning faiss-cpu
python tests/data/retrieval_pml.py
"""

import pathlib

import numpy as np
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")
METRICS += ("mean_reciprocal_rank",)


def main() -> None:
    rng = np.random.default_rng(7)
    labels = np.concatenate([rng.integers(0, 40, 160), rng.integers(40, 44, 140), [50, 51, 52]])
    centers = rng.standard_normal((60, 16))
    points = centers[labels] + 1.2 * rng.standard_normal((len(labels), 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    calculator = AccuracyCalculator(include=METRICS, k="max_bin_count", device=torch.device("cpu"))
    whole = AccuracyCalculator(include=METRICS, k=None, device=torch.device("cpu"))
    x, y = torch.tensor(points), torch.tensor(labels)
    values = {}
    for name, reference in (("alone", None), ("gallery", 120)):
        for which, counter in (("", calculator), ("whole_", whole)):
            if reference is None:
                found = counter.get_accuracy(x, y)
            else:
                found = counter.get_accuracy(x[reference:], y[reference:], x[:reference], y[:reference])
            values |= {f"{name}/{which}{metric}": found[metric] for metric in METRICS}
    np.savez(pathlib.Path(__file__).with_suffix(".npz"), points=points, labels=labels, **values)


if __name__ == "__main__":
    main()

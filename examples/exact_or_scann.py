"""Evaluate the same embeddings exactly and with ScaNN, and see what ScaNN says about its own error.

    python examples/exact_or_scann.py [--items 50000]

The embeddings are made up: classes of ten items around centers in a space of 16 of 64 dimensions. Give your own as
`retrieval.evaluate(embeddings, labels)`.
"""

import argparse

import numpy as np

from tf_detreg import retrieval


def embeddings(items: int, dim: int = 64, inner: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """(items, dim) vectors in classes of ten, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(items) // 10
    centers = rng.standard_normal((labels[-1] + 1, inner))
    points = centers[labels] + 0.45 * rng.standard_normal((items, inner))
    return points @ rng.standard_normal((inner, dim)), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000, help="how many embeddings (default 50000)")
    points, labels = embeddings(parser.parse_args().items)
    for engine in ("exact", "scann"):
        report = retrieval.evaluate(points, labels, k=(1, 10), engine=engine, metrics="recall")
        print(f"R@1 {100 * report.recall[1]:.2f} %, R@10 {100 * report.recall[10]:.2f} %. {report.summary()}\n")


if __name__ == "__main__":
    main()

"""Proxy losses, forward and backward, against pytorch-metric-learning.

    python -m benchmarks.bench_proxy_losses [--runs 9] [--classes 11318]

Needs `pip install torch pytorch-metric-learning`. Both sides run in this process, in turn, on one thread each.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Ours → theirs (class, constructor arguments) and the target for time ours / time theirs, where there is one.
PAIRS = {
    "ProxyAnchor": ("ProxyAnchorLoss", {}, 0.25),
    "ProxyNCAPlusPlus": ("ProxyNCALoss", {"softmax_scale": 9}, None),
    "NormalizedSoftmax": ("NormalizedSoftmaxLoss", {}, None),
    "CosFace": ("CosFaceLoss", {}, None),
    "ArcFace": ("ArcFaceLoss", {}, None),
}


def our_step(name: str, classes: int, labels, embeddings):
    """A call that computes loss and gradients once with this library."""
    import tensorflow as tf

    from tf_detreg import losses

    layer = getattr(losses, name)(classes, embeddings.shape[1])
    layer.build()
    labels, embeddings = tf.constant(labels), tf.constant(embeddings)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = layer(labels, embeddings)
        return value, tape.gradient(value, [embeddings, layer.proxies.value])

    return lambda: float(step()[0])


def their_step(name: str, options: dict, classes: int, labels, embeddings):
    """The same with pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning import losses

    loss = getattr(losses, name)(num_classes=classes, embedding_size=embeddings.shape[1], **options)
    labels = torch.tensor(labels)
    embeddings = torch.tensor(embeddings, requires_grad=True)

    def step():
        embeddings.grad = None
        loss.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        return value.item()

    return step


def interleaved(ours, theirs, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each, run in turn after two warm-up calls."""
    seconds = ([], [])
    for run in range(runs + 2):
        for step, kept in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            step()
            if run >= 2:
                kept.append(time.perf_counter() - start)
    return seconds


def compare(classes: int, batch: int, dim: int, runs: int) -> list[dict]:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, batch)
    embeddings = rng.normal(size=(batch, dim)).astype("float32")
    rows = []
    for name, (theirs, options, target) in PAIRS.items():
        steps = our_step(name, classes, labels, embeddings), their_step(theirs, options, classes, labels, embeddings)
        a, b = interleaved(*steps, runs)
        ratios = [x / y for x, y in zip(a, b, strict=True)]
        rows.append(
            {
                "what": f"{name} forward+backward, C={classes:,}, B={batch}, d={dim}",
                "ours": statistics.median(a),
                "peer": f"pytorch-metric-learning {theirs}",
                "theirs": statistics.median(b),
                "ratio": statistics.median(a) / statistics.median(b),
                "spread": [min(ratios), max(ratios)],
                "target": target,
            }
        )
    return rows


def markdown(rows: list[dict]) -> str:
    lines = ["| what | ours, ms | theirs, ms | ratio | spread | target |", "|---|---|---|---|---|---|"]
    for row in rows:
        low, high = row["spread"]
        target = f"≤ {row['target']}" if row["target"] else ""
        lines.append(
            f"| {row['what']} | {1e3 * row['ours']:.0f} | {1e3 * row['theirs']:.0f} | {row['ratio']:.2f} "
            f"| {low:.2f}–{high:.2f} | {target} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each side (default 9)")
    parser.add_argument("--classes", type=int, default=11318, help="number of classes (default 11318, those of SOP)")
    parser.add_argument("--batch", type=int, default=180, help="batch size (default 180)")
    parser.add_argument("--dim", type=int, default=512, help="embedding size (default 512)")
    arguments = parser.parse_args()

    import tensorflow as tf
    import torch

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    torch.set_num_threads(1)
    from importlib.metadata import version

    rows = compare(arguments.classes, arguments.batch, arguments.dim, arguments.runs)
    print(markdown(rows))
    packages = ("tensorflow", "keras", "torch", "pytorch-metric-learning")
    result = {
        "title": "Proxy losses",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread used",
        "versions": {name: version(name) for name in packages},
        "rows": rows,
    }
    path = Path(__file__).parent / "results" / "proxy_losses.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

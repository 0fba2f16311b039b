"""Pair losses against pytorch-metric-learning: forward and backward pass of one batch, on one thread.

    python benchmarks/bench_pair_losses.py            # needs the `bench` extra (torch, pytorch-metric-learning)

Both sides get the same unit-length batch of P classes × 4 images and run in turn in one process; the table shows
medians of CPU time, which other programs on the machine change little, and for control the ratio by the clock on the
wall. Ours is what `fit` runs, a compiled `tf.function`. A peer that takes longer than the time for its row is run
once. Then each triplet loss runs at B = 2,048 in a process of its own, for its peak memory.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pairs_of_losses():
    """Name, our loss, the peer's loss, target ratio."""
    from pytorch_metric_learning import distances, losses, miners

    from tf_detreg import losses as ours
    from tf_detreg import miners as our_miners

    def mined(loss, miner):
        return lambda x, y: loss(x, y, miner(x, y))

    def triplets(kind):
        return mined(losses.TripletMarginLoss(0.2), miners.TripletMarginMiner(0.2, kind))

    similarity = mined(losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner())
    hard = mined(losses.TripletMarginLoss(0.2), miners.BatchHardMiner())
    product = distances.DotProductSimilarity(normalize_embeddings=False)
    return [
        ("Contrastive", ours.Contrastive(power=1), losses.ContrastiveLoss(), 1.0),
        ("Triplet, all", ours.Triplet(), losses.TripletMarginLoss(0.2), 1.0),
        ("Triplet, semi-hard set", ours.Triplet(negatives="semi_hard"), triplets("semihard"), 1.0),
        ("Triplet, hard set", ours.Triplet(negatives="hard"), triplets("hard"), 1.0),
        ("Triplet, swap", ours.Triplet(swap=True), losses.TripletMarginLoss(0.2, swap=True), 1.0),
        ("Triplet, soft", ours.Triplet(soft=True), losses.TripletMarginLoss(0.0, smooth_loss=True), 1.0),
        ("Triplet, FaceNet semi-hard", ours.TripletSemiHard(), triplets("semihard"), 1.0),
        ("Triplet, batch-hard", ours.TripletBatchHard(), hard, 1.0),
        ("Margin", ours.Margin(), losses.MarginLoss(learn_beta=True), 1.0),
        ("NPairs", ours.NPairs(), losses.NPairsLoss(distance=product), 1.0),
        ("LiftedStructure", ours.LiftedStructure(), losses.LiftedStructureLoss(), 0.1),
        ("GeneralizedLiftedStructure", ours.GeneralizedLiftedStructure(), losses.GeneralizedLiftedStructureLoss(), 1.0),
        ("MultiSimilarity", ours.MultiSimilarity(), losses.MultiSimilarityLoss(), 1.0),
        ("MultiSimilarity, mined", ours.MultiSimilarity(miner=our_miners.MultiSimilarity()), similarity, 1.0),
        ("Circle", ours.Circle(), losses.CircleLoss(), 1.0),
        ("SupCon", ours.SupCon(), losses.SupConLoss(), 1.0),
        ("NTXent", ours.NTXent(), losses.NTXentLoss(), 1.0),
        ("FastAP", ours.FastAP(), losses.FastAPLoss(), 1.0),
    ]


def batch(size: int, dim: int):
    """Labels of size/4 classes × 4, and unit vectors."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(size) // 4
    vectors = rng.normal(size=(size // 4, dim))[labels] + rng.normal(size=(size, dim))
    return labels, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def our_step(loss, labels, vectors):
    """A function that runs one forward and backward pass."""
    import tensorflow as tf

    if hasattr(loss, "build"):
        loss.build(labels.shape, vectors.shape)

    @tf.function
    def step(labels, vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            value = loss(labels, vectors)
        return value, tape.gradient(value, vectors)

    arguments = tf.constant(labels, tf.int32), tf.constant(vectors)
    return lambda: float(step(*arguments)[0])


def their_step(loss, labels, vectors):
    """The same for torch."""
    import torch

    labels = torch.tensor(labels)

    def step():
        leaf = torch.tensor(vectors, requires_grad=True)
        value = loss(leaf, labels)
        value.backward()
        return value.item()

    return step


def timed(step) -> tuple[float, float]:
    """Seconds of one run, by the process's CPU time and by the clock on the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(ours, theirs, repeats: int, seconds: float):
    """Times of both, taken in turn after a run of each to warm up; a slow peer's first run is all there is."""
    timed(ours)
    first = timed(theirs)
    times = [timed(ours)], [first]
    if first[0] < seconds:
        times = [], []
        began = time.perf_counter()
        while len(times[0]) < repeats and (len(times[0]) < 3 or time.perf_counter() - began < seconds):
            for step, taken in zip((ours, theirs), times, strict=True):
                taken.append(timed(step))
    return times


def row_of(what: str, target: float, mine, theirs) -> dict:
    """Medians and ratios of one comparison."""
    ours, our_wall = (statistics.median(clock) for clock in zip(*mine, strict=True))
    others, other_wall = (statistics.median(clock) for clock in zip(*theirs, strict=True))
    ratios = [a[0] / b[0] for a, b in zip(mine, theirs, strict=True)]
    return {
        "what": what,
        "ours": ours,
        "peer": "pytorch-metric-learning",
        "theirs": others,
        "ratio": ours / others,
        "wall_ratio": our_wall / other_wall,
        "spread": [min(ratios), max(ratios)],
        "target": target,
    }


MEMORY = {
    "all": {},
    "soft": {"soft": True},
    "swap": {"swap": True},
    "direction": {"direction": 0.3},
    "semi-hard set": {"negatives": "semi_hard"},
    "hard set": {"negatives": "hard"},
    "FaceNet semi-hard": None,
    "batch-hard": None,
    "batch-hard soft": None,
}
MEMORY_SIZE = 2048


def triplet_loss(variant: str):
    from tf_detreg import losses

    if variant == "FaceNet semi-hard":
        return losses.TripletSemiHard()
    if variant.startswith("batch-hard"):
        return losses.TripletBatchHard(soft=variant.endswith("soft"))
    return losses.Triplet(**MEMORY[variant])


def grown(variant: str, dim: int) -> dict:
    """Growth of this process's peak memory, and seconds, for one triplet loss, forward and backward."""

    def peak():
        # Of this program alone: getrusage would begin with the peak of the process that started it.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))

    loss = triplet_loss(variant)
    our_step(loss, *batch(64, dim))()
    before = peak()
    step = our_step(loss, *batch(MEMORY_SIZE, dim))
    step()
    return {"seconds": timed(step)[0], "before": before, "growth": peak() - before}


def memory_rows(dim: int) -> list[dict]:
    """Each variant in a fresh process, since a peak never falls."""
    rows = []
    for variant in MEMORY:
        command = [sys.executable, __file__, "--memory-of", variant, "--dim", str(dim)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append({"what": f"Triplet, {variant}", **found})
        print(memory_line(rows[-1]), flush=True)
    return rows


def memory_line(row: dict) -> str:
    return f"| {row['what']} | {row['growth']:.0f} | {row['before'] + row['growth']:.0f} | {1e3 * row['seconds']:.0f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512], help="batch sizes")
    parser.add_argument("--dim", type=int, default=512, help="embedding size")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each side")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row, at least 3 runs")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--memory-of", choices=MEMORY, help="print the memory of one triplet loss, and end")
    arguments = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.memory_of:
        print(json.dumps(grown(arguments.memory_of, arguments.dim)))
        return
    rows = []

    import pytorch_metric_learning
    import torch

    torch.set_num_threads(1)
    for size in arguments.sizes:
        labels, vectors = batch(size, arguments.dim)
        for name, loss, peer, target in pairs_of_losses():
            if arguments.only.lower() not in name.lower():
                continue
            steps = our_step(loss, labels, vectors), their_step(peer, labels, vectors)
            mine, theirs = compare(*steps, arguments.repeats, arguments.seconds)
            rows.append(row_of(f"{name}, B = {size}", target, mine, theirs))
            print(table([rows[-1]]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    if arguments.only:
        return
    print(f"\n| B = {MEMORY_SIZE:,}, d = {arguments.dim} | growth of peak memory, MB | whole process, MB | ms |")
    print("|---|---|---|---|")
    memory = memory_rows(arguments.dim)
    versions = {"tensorflow": tf.__version__, "torch": torch.__version__}
    versions["pytorch-metric-learning"] = pytorch_metric_learning.__version__
    result = {
        "title": f"Pair losses, forward + backward, d = {arguments.dim}, one thread, CPU time",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
        "rows": rows,
        "memory": [
            f"{row['what']}, B = {MEMORY_SIZE}: {row['growth']:.0f} MB above {row['before']:.0f} MB" for row in memory
        ],
    }
    path = Path(__file__).parent / "results" / "pair_losses.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    lines = ["| what | ours, CPU ms | theirs | ratio | min … max | target | wall ratio |", "|---|" + "---|" * 6]
    for row in rows:
        low, high = row["spread"]
        times = f"{1e3 * row['ours']:.2f} | {1e3 * row['theirs']:.2f}"
        ratios = f"{row['ratio']:.2f} | {low:.2f} … {high:.2f} | ≤ {row['target']} | {row['wall_ratio']:.2f}"
        lines.append(f"| {row['what']} | {times} | {ratios} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

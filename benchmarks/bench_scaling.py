"""How the cost of pair and proxy losses grows with the batch size B and the number of classes C.

    python benchmarks/bench_scaling.py [--dim 128] [--rounds 7]

Forward and backward pass of one batch (classes × 4 images) on one thread. Every round times every loss at every size
once, so a machine whose speed drifts slows all of them. An exponent is the slope of log seconds over log size, fitted
to the three largest sizes of each round (at small sizes the fixed cost of a call rules); the notes give its median and
its range over the rounds. Memory is taken in a process for each loss, sizes rising: what the largest call so far added
to the process. The triplet loss that forms all B³ triplets, for comparison, is written here.
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

import numpy as np

SIZES = (64, 128, 256, 512, 1024, 2048)
# The tensors of all triplets take gigabytes beyond.
CUBIC_SIZES = (64, 128, 192, 256, 384)
CLASSES = (100, 1_000, 10_000, 30_000)
BATCH = 128
MARGIN = 0.2
CUBIC, TRIPLET, SIMILARITY = "triplet, all B³ formed", "Triplet, all", "MultiSimilarity"
PROXY_BATCHES, PROXY_CLASSES = "ProxyAnchor, C = 1,000", f"ProxyAnchor, B = {BATCH}"
# What is measured, and the letter that grows.
GROWS = {CUBIC: "B", TRIPLET: "B", SIMILARITY: "B", PROXY_BATCHES: "B", PROXY_CLASSES: "C"}


def batch(size: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of size/4 classes × 4, and vectors around a center for each class."""
    rng = np.random.default_rng(0)
    slot = np.arange(size) // 4
    labels = rng.choice(max(classes, size // 4), size // 4, replace=False)[slot]
    return labels.astype("int32"), (rng.normal(size=(size // 4, dim))[slot] + rng.normal(size=(size, dim))).astype("f4")


def all_triplets(labels, embeddings):
    """The triplet loss as its equation stands: one tensor of all (anchor, positive, negative), B³ numbers."""
    import tensorflow as tf

    z = tf.math.l2_normalize(embeddings, axis=1)
    distances = tf.sqrt(tf.maximum(2 - 2 * tf.matmul(z, z, transpose_b=True), 1e-12))
    same_class = labels[:, None] == labels[None, :]
    positives = same_class & ~tf.eye(tf.size(labels), dtype=tf.bool)
    gaps = distances[:, :, None] - distances[:, None, :] + MARGIN
    losses = tf.where(positives[:, :, None] & ~same_class[:, None, :], tf.nn.relu(gaps), 0)
    return tf.reduce_sum(losses) / tf.maximum(tf.reduce_sum(tf.cast(losses > 0, tf.float32)), 1)


def step(loss, labels: np.ndarray, vectors: np.ndarray):
    """A function, traced already, that runs one forward and backward pass and returns the loss."""
    import tensorflow as tf

    own = [loss.proxies] if hasattr(loss, "proxies") else []

    @tf.function
    def compute(labels, vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            value = loss(labels, vectors)
        return value, tape.gradient(value, [vectors, *(proxies.value for proxies in own)])

    arguments = tf.constant(labels), tf.constant(vectors)
    traced = compute.get_concrete_function(*arguments)
    return lambda: float(traced(*arguments)[0])


def series(name: str, dim: int) -> dict:
    """The steps of a loss, by size, in rising order."""
    from tf_detreg import losses

    def proxy_anchor(classes):
        loss = losses.ProxyAnchor(classes, dim)
        loss.build()
        return loss

    if name == PROXY_CLASSES:
        return {classes: step(proxy_anchor(classes), *batch(BATCH, dim, classes)) for classes in CLASSES}
    if name == PROXY_BATCHES:
        return {size: step(proxy_anchor(1_000), *batch(size, dim, 1_000)) for size in SIZES}
    loss, sizes = {
        CUBIC: (all_triplets, CUBIC_SIZES),
        TRIPLET: (losses.Triplet(margin=MARGIN), SIZES),
        SIMILARITY: (losses.MultiSimilarity(), SIZES),
    }[name]
    return {size: step(loss, *batch(size, dim, size // 4)) for size in sizes}


def check(found: dict) -> None:
    """The two triplet losses must be the same function, or their times could not be compared."""
    for size in CUBIC_SIZES[:2]:
        cubic, ours = (found[name][size]() for name in (CUBIC, TRIPLET))
        np.testing.assert_allclose(ours, cubic, rtol=1e-4)


def time_all(found: dict, rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds by name and size, one of each in every round, after two rounds that warm up."""
    seconds = {name: {size: [] for size in steps} for name, steps in found.items()}
    for round_ in range(-2, rounds):
        for name, steps in found.items():
            for size, run in steps.items():
                # The fastest of three where that costs next to nothing: a short call is easily disturbed.
                taken = [timed(run)]
                if taken[0] < 0.02:
                    taken += [timed(run), timed(run)]
                if round_ >= 0:
                    seconds[name][size].append(min(taken))
    return seconds


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peaks(name: str, dim: int) -> dict[int, float]:
    """Megabytes that a loss adds to its process, by size, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--dim", str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {int(size): megabytes for size, megabytes in json.loads(done.stdout.splitlines()[-1]).items()}


def print_peaks(name: str, dim: int) -> None:
    """The peak after each size but the smallest, counted from the process in which all is traced and that one ran."""
    (_, smallest), *larger = series(name, dim).items()
    smallest()
    # Forget the peak of the imports (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before, found = status("VmRSS"), {}
    for size, run in larger:
        run()
        run()
        found[size] = status("VmHWM") - before
    print(json.dumps(found))


def status(field: str) -> float:
    """A figure of this process in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def slope(values: dict[int, float], largest: int = 3) -> float:
    """The exponent of growth: the slope of log value over log size, at the largest sizes."""
    sizes = sorted(values)[-largest:]
    return float(np.polyfit(np.log(sizes), np.log([max(values[size], 1e-9) for size in sizes]), 1)[0])


def exponents(by_size: dict[int, list[float]]) -> list[float]:
    """The exponent of each round."""
    return [slope(dict(zip(by_size, times, strict=True))) for times in zip(*by_size.values(), strict=True)]


def growth_note(name: str, letter: str, seconds: dict[int, list[float]], megabytes: dict[int, float]) -> str:
    found = sorted(exponents(seconds))
    fitted = ", ".join(f"{size:,}" for size in sorted(seconds)[-3:])
    return (
        f"- {name}: seconds grow as {letter}^{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f} over "
        f"{len(found)} rounds), peak memory as {letter}^{slope(megabytes):.2f}; fitted to {letter} = {fitted}."
    )


def cost_row(name: str, letter: str, size: int, seconds: list[float], megabytes: float | None) -> dict:
    what = f"{name}, {letter} = {size:,}" + ("" if megabytes is None else f": {megabytes:,.1f} MB at the peak")
    return {"what": what, "ours": statistics.median(seconds), "peer": None, "theirs": None, "ratio": None}


def ratio_row(size: int, ours: list[float], cubic: list[float]) -> dict:
    ratios = [a / b for a, b in zip(ours, cubic, strict=True)]
    a, b = statistics.median(ours), statistics.median(cubic)
    row = {"what": f"Triplet, all, B = {size}", "ours": a, "peer": "all B³ triplets formed", "theirs": b}
    return {**row, "ratio": a / b, "spread": [min(ratios), max(ratios)], "target": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=128, help="size of an embedding (default 128)")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each (default 7)")
    parser.add_argument("--memory", choices=GROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.memory:
        print_peaks(arguments.memory, arguments.dim)
        return
    load = f"- Load average when it started: {os.getloadavg()[0]:.1f}; this benchmark alone needs 1."
    found = {name: series(name, arguments.dim) for name in GROWS}
    check(found)
    seconds = time_all(found, arguments.rounds)
    megabytes = {name: peaks(name, arguments.dim) for name in GROWS}
    notes = [growth_note(name, letter, seconds[name], megabytes[name]) for name, letter in GROWS.items()]
    rows = [ratio_row(size, seconds[TRIPLET][size], seconds[CUBIC][size]) for size in CUBIC_SIZES if size in SIZES]
    for name, letter in GROWS.items():
        rows += [cost_row(name, letter, size, seconds[name][size], megabytes[name].get(size)) for size in found[name]]
    result = {
        "title": f"Pair against proxy losses as B and C grow, forward + backward, d = {arguments.dim}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {"tensorflow": tf.__version__},
        "notes": "\n".join([*notes, load]),
        "rows": rows,
    }
    print(result["notes"])
    for row in rows:
        print(f"{row['what']}: {1e3 * row['ours']:.2f} ms" + (f", {row['ratio']:.3f} ×" if row["ratio"] else ""))
    path = Path(__file__).parent / "results" / "scaling.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

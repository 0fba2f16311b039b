"""What each head costs beside a linear one: a training step, an embedded batch, parameters and memory.

    python benchmarks/bench_head_costs.py [--rounds 15]

The heads are those of `studies/emoji-flow-type.toml`, on frozen features, with Proxy-Anchor. One thread; each head
takes turns with the linear one. Memory is the peak of a process of its own, beyond what it held before the head was
built.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from bench_heads import one_thread, status
from bench_training import seconds, steps_of

FEATURES, DIM, BATCH, CLASSES = 1280, 128, 128, 400
FLOW = {"dim": DIM, "hidden": 64, "conditioner_dropout": 0.3, "dropout": 0.15}
ISOMETRIC = {"measure": "isometric", "penalty": 1.0}
HEADS = {
    "Linear": {"dim": DIM},
    "ResidualMLP": {"dim": DIM, "blocks": 1, "hidden": 576, "conditioner_dropout": 0.3, "dropout": 0.15},
    "NICE": {**FLOW, "depth": 12},
    "RealNVP": {**FLOW, **ISOMETRIC, "depth": 12},
    "Glow": {**FLOW, **ISOMETRIC, "depth": 6},
    "FFJORD": {"dim": DIM, "hidden": 64, "dropout": 0.15},
    "Dueling": {**FLOW, "measure": "shifted", "penalty": 0.05, "depth": 12},
}


def model(name: str):
    """A compiled `MetricModel` on features; `Dueling` is two RealNVP heads, as `rival=` makes them."""
    import keras

    from tf_detreg import heads, losses, training

    keras.utils.set_random_seed(0)
    kind = getattr(heads, "RealNVP" if name == "Dueling" else name)
    rival = kind(**HEADS[name] | {"penalty": -0.05}, name="rival") if name == "Dueling" else None
    embedder = keras.Sequential([keras.Input((FEATURES,)), kind(**HEADS[name], name="head")])
    made = training.MetricModel(embedder, losses.ProxyAnchor(CLASSES), rival=rival)
    made.compile(training.optimizer(head_rate=1e-3))
    return made


def batch():
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    features = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    return tf.constant(features), tf.constant(rng.integers(0, CLASSES, BATCH).astype("int32"))


def embedded_batches(made, count: int):
    """`count` batches through the embedder that is served."""
    import tensorflow as tf

    embed = tf.function(functools.partial(made.embedder, training=False))
    features, _ = batch()

    def work():
        for _ in range(count):
            embedded = embed(features)
        embedded.numpy()

    return work


def row(what: str, ours, linear, count: int, rounds: int) -> dict:
    """Seconds of one step of both, measured in turns after a warm-up."""
    ours(), linear()
    times = [(seconds(ours) / count, seconds(linear) / count) for _ in range(rounds)]
    mine, other = (statistics.median(side) for side in zip(*times, strict=True))
    ratios = [a / b for a, b in times]
    spread = [min(ratios), max(ratios)]
    return {"what": what, "ours": mine, "peer": "Linear", "theirs": other, "ratio": mine / other, "spread": spread}


def head_rows(rounds: int) -> list[dict]:
    linear, rows = model("Linear"), []
    for name in HEADS:
        if name == "Linear":
            continue
        made, count = model(name), 2 if name == "FFJORD" else 10
        steps = steps_of(made, count, batch()), steps_of(linear, count, batch())
        rows.append(row(f"{name}, a training step", *steps, count, rounds))
        served = embedded_batches(made, count), embedded_batches(linear, count)
        rows.append(row(f"{name}, a batch embedded", *served, count, rounds))
        print(f"{name}: {rows[-2]['ratio']:.2f} and {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    return rows


def notes() -> str:
    """Parameters that are served, and memory, of every head."""
    lines = []
    for name in HEADS:
        answer = subprocess.run(
            [sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True
        )
        parameters, megabytes = answer.stdout.split()
        lines.append(
            f"- {name}: {int(parameters):,} parameters served, {float(megabytes):.0f} MB at the peak of training"
        )
    return "\n".join(lines)


def print_memory(name: str) -> None:
    """Warms TensorFlow up with a model of another size first, so that only the head's own memory counts (Linux)."""
    import keras

    warm = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    warm.compile("adamw", "mse")
    warm.train_on_batch(*[keras.ops.ones((4, 8))] * 2)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    made = model(name)
    steps_of(made, 20, batch())()
    print(made.embedder.count_params(), status("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns per comparison (default 15)")
    parser.add_argument("--memory", choices=HEADS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import keras
    import tensorflow as tf

    one_thread()
    if options.memory:
        print_memory(options.memory)
        return
    result = {
        "title": f"What a head costs: frozen features of {FEATURES:,}, d = {DIM}, batch {BATCH}, Proxy-Anchor",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "notes": notes(),
        "rows": head_rows(options.rounds),
    }
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "head_costs.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(result["notes"])


if __name__ == "__main__":
    main()

"""Training: what a step of `MetricModel` costs beyond its mathematics, and what a second worker brings.

    python benchmarks/bench_training.py [--rounds 5] [--steps 5] [--no-workers]

Everything runs on one thread; two workers are two processes on this machine, one thread each.
"""

import argparse
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import time

BATCH, DIM, DEPTH, HIDDEN, CLASSES, SIDE = 128, 512, 12, 512, 100, 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved measurements (default 5)")
    parser.add_argument("--steps", type=int, default=5, help="training steps a measurement (default 5)")
    parser.add_argument("--no-workers", action="store_true", help="leave the two processes out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def data():
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    labels = np.repeat(rng.permutation(CLASSES)[: BATCH // 4], 4).astype("int32")
    return tf.constant(rng.uniform(0, 255, (BATCH, SIDE, SIDE, 3)), tf.float32), tf.constant(labels)


def model(rival: bool = False, **options):
    import keras

    from tf_detreg import backbones, heads, losses, training

    keras.utils.set_random_seed(0)
    flow = {"dim": DIM, "depth": DEPTH, "hidden": HIDDEN}
    head = heads.RealNVP(**flow, penalty=0.05, name="head")
    embedder = keras.Sequential([backbones.small_cnn(SIDE), head])
    made = training.MetricModel(
        embedder,
        losses.ProxyAnchor(CLASSES),
        rival=heads.RealNVP(**flow, penalty=-0.05, name="rival") if rival else None,
        **options,
    )
    made.compile(training.optimizer(1e-4, 1e-3, 100))
    return made


def steps_of(made, count: int, batch=None):
    """`count` training steps through Keras, as `fit` takes them, on one batch (default: of `data`) again and again."""
    import tensorflow as tf

    made.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch or data()).repeat())

    def work():
        for _ in range(count):
            logs = made.train_function(batches)
        float(logs["loss"])

    return work


def bare_steps(count: int):
    """The same mathematics, gradients and update in one `tf.function` without Keras' loop, metrics and MetricModel."""
    import tensorflow as tf

    made = model()
    variables = made.trainable_variables
    made.optimizer.build(variables)
    images, labels = data()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            y, scales = made.head.flow(made.head.project(made.backbone(images, training=True), True), True)
            loss = made.loss_function(labels, made.head.normalize(y)) + made.head.penalty * made.head.regularity(scales)
        made.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def work():
        for _ in range(count):
            loss = step()
        float(loss)

    return work


def in_turns(ours, theirs, rounds: int) -> tuple[float, float, list[float]]:
    ours(), theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = [a / b for a, b in times]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), [min(ratios), max(ratios)]


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row(what, peer, measured, count, target=None) -> dict:
    ours, theirs, spread = measured
    return {
        "what": what,
        "ours": ours / count,
        "peer": peer,
        "theirs": theirs / count,
        "ratio": ours / theirs,
        "spread": spread,
        "target": target,
    }


def step_rows(options) -> list[dict]:
    plain = steps_of(model(), options.steps)
    cases = [
        ("MetricModel's step", plain, "the same mathematics, bare", bare_steps(options.steps)),
        ("with a rival head", steps_of(model(rival=True), options.steps), "without", plain),
        ("with interpolation", steps_of(model(interpolation=0.4), options.steps), "without", plain),
    ]
    return [
        row(what, peer, in_turns(ours, theirs, options.rounds), options.steps) for what, ours, peer, theirs in cases
    ]


def worker(options) -> None:
    """One process of the comparison: prints its median seconds a step."""
    import tensorflow as tf

    from tf_detreg.training.distribution import open_place

    tf.config.threading.set_intra_op_parallelism_threads(1)
    place = open_place("multiworker" if options.worker == "cluster" else "")
    with place.strategy.scope():
        made = model()
        made.optimizer.build(made.trainable_variables)
    dataset = place.distribute(tf.data.Dataset.from_tensors(data()).repeat())
    made.make_train_function()
    batches = iter(dataset)
    times = []
    for _ in range(3 + options.rounds * options.steps):
        began = time.perf_counter()
        logs = made.train_function(batches)
        [float(value.numpy().mean()) for value in logs.values()]
        times.append(time.perf_counter() - began)
    times = times[3:]
    print(json.dumps({"median": statistics.median(times), "low": min(times), "high": max(times)}))


def worker_rows(options) -> list[dict]:
    def start(kind, extra=None):
        command = [sys.executable, __file__, "--worker", kind]
        command += ["--rounds", str(options.rounds), "--steps", str(options.steps)]
        environment = {**os.environ, **(extra or {})}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def result(process):
        return json.loads(process.communicate()[0].strip().splitlines()[-1])

    one = result(start("alone"))
    ports = [_free_port(), _free_port()]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    tasks = [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})} for i in (0, 1)]
    processes = [start("cluster", task) for task in tasks]
    two, _ = map(result, processes)
    spread = [two["low"] / one["median"], two["high"] / one["median"]]
    measured = (two["median"], one["median"], spread)
    return [row("two workers on one machine, half of the batch each", "one process", measured, 1)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def markdown(rows: list[dict]) -> str:
    lines = ["| what | s a step | compared with | s a step | ratio | spread |", "|---|---|---|---|---|---|"]
    for r in rows:
        low, high = r["spread"]
        cells = [r["what"], f"{r['ours']:.3f}", r["peer"], f"{r['theirs']:.3f}", f"{r['ratio']:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{low:.2f} – {high:.2f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    if options.worker:
        worker(options)
        return
    # The workers first: this process must not hold a core's caches while they are measured.
    rows = [] if options.no_workers else worker_rows(options)
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rows = [*step_rows(options), *rows]
    print(markdown(rows))
    title = f"A training step: small_cnn at {SIDE} px, RealNVP T={DEPTH}, d={DIM}, hidden {HIDDEN}, batch {BATCH}"
    result = {
        "title": title,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread a process",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "rows": rows,
    }
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "training.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

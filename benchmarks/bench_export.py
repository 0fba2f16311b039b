"""Exports against the Keras model, and the local server against the model alone.

    python benchmarks/bench_export.py                 # about 5 minutes; --quick: one

Trains a glyph embedder, releases it in every format, runs each in a clean process on unseen classes (cosine, change of
R@1, size), times SavedModel and LiteRT in turns with the Keras model's own compiled function on one thread, and puts
`tf_detreg.serving` under 32 concurrent clients on this machine.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = pathlib.Path(__file__).parent


def trained(epochs: int):
    """A glyph embedder after a few epochs, and the splits."""
    import keras

    from tf_detreg import backbones, datasets, heads, losses, training

    keras.utils.set_random_seed(0)
    splits = datasets.glyphs()
    head = heads.RealNVP(128, hidden=128, penalty=0.05)
    embedder = keras.Sequential([keras.Input((32, 32, 3)), backbones.small_cnn(32), head], name="glyphs")
    model = training.MetricModel(embedder, losses.SupCon())
    model.compile(training.optimizer(backbone_rate=3e-3, head_rate=3e-3))
    model.fit(splits.train.batches(64, 4), epochs=epochs, verbose=2)
    return model.embedder, splits


def in_turns(functions: list, seconds: float) -> list[list[float]]:
    """Seconds of each call, the functions taken in turn for a while."""
    for function in functions:
        for _ in range(5):
            function()
    times = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return times


LATENCY = """
import json, sys, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
sys.path.insert(0, sys.argv[1])
from bench_export import in_turns
import tf_detreg
from ai_edge_litert.interpreter import Interpreter
keras_file, saved, lite, seconds = sys.argv[2:]
model = tf_detreg.load(keras_file)
shape = model.inputs[0].shape
image = np.random.default_rng(0).uniform(0, 255, (1, *shape[1:])).astype("float32")
tensor = tf.constant(image)
own = tf.function(lambda images: model(images, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)])
signature = tf.saved_model.load(saved).signatures["serving_default"]
interpreter = Interpreter(lite, num_threads=1)
interpreter.allocate_tensors()
given, found = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
def run():
    interpreter.set_tensor(given, image)
    interpreter.invoke()
    interpreter.get_tensor(found)
calls = [lambda: own(tensor).numpy(), lambda: signature(images=tensor)["embeddings"].numpy(), run]
print(json.dumps(in_turns(calls, float(seconds))))
"""


def latency_rows(what: str, keras_file, paths: dict, seconds: float) -> list[dict]:
    """SavedModel and LiteRT at batch 1 against the Keras model's compiled function, one thread each."""
    command = [sys.executable, "-c", LATENCY, str(HERE), str(keras_file), paths["saved_model"], paths["float32"]]
    done = subprocess.run([*map(str, command), str(seconds)], capture_output=True, text=True, check=True)
    own, saved, lite = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for name, times, target in (("SavedModel", saved, 1.1), ("LiteRT float32", lite, 0.8)):
        ratios = [one / other for one, other in zip(times, own, strict=True)]
        row = {"what": f"{name}, {what}, batch 1", "ours": statistics.median(times), "peer": "Keras, compiled"}
        row |= {"theirs": statistics.median(own), "ratio": statistics.median(times) / statistics.median(own)}
        spread = statistics.quantiles(ratios, n=20)
        rows.append({**row, "spread": [spread[0], spread[-1]], "target": target})
    return rows


ALONE = """
import json, sys, os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from concurrent.futures import ThreadPoolExecutor
import numpy as np, tensorflow as tf
run = tf.saved_model.load(sys.argv[1]).signatures["serve_bytes"]
contents = list(np.load(sys.argv[2]))
def call(rows, end):
    images = 0
    while time.perf_counter() < end:
        run(image_bytes=rows)["embeddings"].numpy()
        images += len(rows)
    return images
print("ready", flush=True)
for line in sys.stdin:
    batch, callers, seconds = (int(word) for word in line.split())
    rows = tf.constant(contents[:batch])
    call(rows, time.perf_counter() + 0.5)
    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(callers) as pool:
        images = sum(pool.map(call, [rows] * callers, [start + seconds] * callers))
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([images / taken, 1000 * cpu / images]), flush=True)
"""

LOAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import load, numpy as np
contents = list(np.load(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(load.run("127.0.0.1", int(sys.argv[3]), sys.argv[4], contents, 32, float(line))), flush=True)
"""


class Process:
    """A Python process that answers each line with one line of JSON."""

    def __init__(self, code: str, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def ask(self, line: object):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait()


def load_row(
    what: str, saved: pathlib.Path, contents: list[bytes], seconds: float, target: float = 0.6
) -> tuple[dict, str]:
    """The local server under 32 clients, in turns with the model alone as the server calls it.

    That is the same signature on the same bytes, in the batches that 32 clients make: two calls of 16 rows at a time.
    The clients need the same cores, so CPU seconds an image are reported beside the images a second.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "contents.npy"
        np.save(file, np.array(contents))
        port = free_port()
        start = f"from tf_detreg.serving import serve; serve({str(saved.parent)!r}, port={port})"
        arguments = (HERE.parent / "examples" / "serving", file, port, saved.parent.name)
        with Process(start) as server, Process(ALONE, saved, file) as alone, Process(LOAD, *arguments) as clients:
            wait_for(port)
            pid = server.process.pid
            clients.ask(max(2.0, seconds / 6))
            pids = (pid, clients.process.pid)
            before, begun, once = memory(pid), [cpu_seconds(process) for process in pids], clients.ask(seconds)
            used = [cpu_seconds(process) - start for process, start in zip(pids, begun, strict=True)]
            cpu, client_cpu = (1000 * each / sum(once["answers"].values()) for each in used)
            after = memory(pid)
            part = max(1, round(seconds / 12))
            turns = [(alone.ask(f"16 2 {part}"), clients.ask(part), alone.ask(f"32 1 {part}")) for _ in range(5)]
    ratios = sorted(found["images_per_second"] / model for (model, _), found, _ in turns)
    rate = statistics.median(found["images_per_second"] for _, found, _ in turns)
    model, model_cpu = (statistics.median(column) for column in zip(*(turn[0] for turn in turns), strict=True))
    single, single_cpu = (statistics.median(column) for column in zip(*(turn[2] for turn in turns), strict=True))
    row = {"what": f"server, {what}, 32 clients: images/s as s/image", "ours": 1 / rate, "theirs": 1 / model}
    row |= {"peer": "the model alone, two calls of 16", "ratio": statistics.median(ratios), "target": target}
    row |= {"higher_is_better": True, "spread": [ratios[0], ratios[-1]]}
    errors = {code: count for code, count in once["answers"].items() if code != "200"}
    note = (
        f"{what}: {sum(once['answers'].values())} requests in {seconds:g} s, errors {errors or 'none'}; p50 "
        f"{once['p50_ms']} ms, p99 {once['p99_ms']} ms; memory {before:.0f} MB before, {after:.0f} MB after. In turns: "
        f"{rate:.0f} images/s against {model:.0f} of the model alone in two calls of 16 and {single:.0f} in one of 32. "
        f"CPU an image: server {cpu:.2f} ms, its clients {client_cpu:.2f} ms on the same cores, model alone "
        f"{model_cpu:.2f} ms (16) and {single_cpu:.2f} ms (32)."
    )
    return row, note


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_for(port: int) -> None:
    import urllib.request

    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server did not start")


def memory(pid: int) -> float:
    """Megabytes in use by a process (Linux)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def photo_embedder():
    """A net of a phone's size on photos: MobileNetV2 at 160 pixels, random weights."""
    import keras

    from tf_detreg import heads

    inputs = keras.Input((160, 160, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    net = keras.applications.MobileNetV2(input_shape=(160, 160, 3), include_top=False, weights=None, pooling="avg")
    return keras.Model(inputs, heads.RealNVP(128)(net(scaled)), name="photos")


def encoded(images, form: str) -> list[bytes]:
    import io

    import numpy as np
    from PIL import Image

    contents = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(image, np.uint8)).save(buffer, form)
        contents.append(buffer.getvalue())
    return contents


def mobile_search(folder: pathlib.Path, embedder, items: int) -> str:
    """Size, time and faithfulness of offline search over a large gallery."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from tf_detreg import export

    rng = np.random.default_rng(0)
    dim = embedder.outputs[0].shape[-1]
    gallery = rng.normal(size=(items, dim)).astype(np.float32)
    images = rng.uniform(0, 255, (20, *embedder.inputs[0].shape[1:])).astype(np.float32)
    queries = np.asarray(embedder(images))
    gallery[:2000] = np.repeat(queries, 100, axis=0) + rng.normal(0, 0.05, (2000, dim))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    path = export.retrieval_litert(embedder, gallery, folder / "search.tflite", k=10)
    interpreter = Interpreter(str(path), num_threads=1)
    run = interpreter.get_signature_runner("serving_default")
    truth = np.argsort(-(queries @ gallery.T), axis=1)[:, :10]
    found, times = [], []
    for image in images:
        start = time.perf_counter()
        found.append(run(images=image[None])["indices"][0])
        times.append(time.perf_counter() - start)
    shared = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, truth, strict=True)])
    return (
        f"Offline search over {items:,} × {dim}: {path.stat().st_size / 1e6:.1f} MB, {1000 * np.median(times):.1f} ms "
        f"an image on one thread with the embedder, {100 * shared:.0f} % of the exact float32 top 10 (among 100 "
        "near-duplicates a query, the hardest case)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer epochs and seconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load on the server (default 60)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--server", nargs=2, metavar=("MODEL", "CONTENTS.npy"), help="only the server, on this export")
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.epochs = 8.0, 1
    import numpy as np

    if given.server:
        model, contents = pathlib.Path(given.server[0]), list(np.load(given.server[1]))
        row, note = load_row(model.name, next(model.glob("[0-9]*")).resolve(), contents, given.seconds)
        print(json.dumps(row), note, sep="\n")
        return
    import tensorflow as tf

    from tf_detreg import export

    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        embedder, splits = trained(given.epochs)
        loose = dict.fromkeys(export.LIMITS, export.Limits(0.0, 100.0))  # measured here, not enforced
        done = export.release(embedder, folder / "glyphs", splits.test, calibration=splits.train, limits=loose)
        print(done.verification.to_markdown())
        sizes = {check.precision: check.megabytes for check in done.verification.checks if check.engine == "litert"}
        for check in done.verification.checks:
            limit = export.LIMITS[check.precision]
            notes.append(
                f"{check.name}: cosine min {check.cosine_min:.6f} (≥ {limit.cosine}), R@1 {check.recall_points:+.2f} "
                f"points of {100 * done.verification.recall_at_1:.2f} % (≤ {limit.recall_points}), "
                f"{check.megabytes:.2f} MB."
            )
        notes.append(f"int8 / float32 size: {sizes['int8'] / sizes['float32']:.3f} (≤ 0.30).")
        embedder.save(folder / "glyphs.keras")
        rows += latency_rows("glyphs 32 px", folder / "glyphs.keras", done.paths, given.seconds / 6)
        notes.append(mobile_search(folder, embedder, 20_000 if given.quick else 100_000))
        images = next(iter(splits.test.ordered(32)))[0].numpy()
        row, note = load_row("glyphs 32 px", done.paths["saved_model"], encoded(images, "PNG"), given.seconds)
        rows, notes = [*rows, row], [*notes, note]

        photos = photo_embedder()
        rng = np.random.default_rng(0)
        coarse = rng.uniform(0, 255, (32, 20, 30, 3))
        pictures = tf.image.resize(coarse, (240, 320), "bicubic").numpy().clip(0, 255)
        paths = {"saved_model": export.saved_model(photos, folder / "photos")}
        paths["float32"] = export.litert(photos, folder / "photos.tflite")
        photos.save(folder / "photos.keras")
        rows += latency_rows("MobileNetV2 160 px", folder / "photos.keras", paths, given.seconds / 6)
        row, note = load_row("MobileNetV2 160 px", paths["saved_model"], encoded(pictures, "JPEG"), given.seconds, 0.9)
        rows, notes = [*rows, row], [*notes, note]
    report(rows, notes)


def report(rows: list[dict], notes: list[str]) -> None:
    import ai_edge_litert
    import keras
    import tensorflow as tf

    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    versions["ai-edge-litert"] = getattr(ai_edge_litert, "__version__", "2.3")
    result = {
        "title": "Exports and serving",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
        "rows": rows,
        "notes": "\n".join(f"- {note}" for note in notes),
    }
    print("| what | ours | peer | theirs | ratio | spread | target |\n|---|---:|---|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['what']} | {1000 * row['ours']:.3f} ms | {row['peer']} | {1000 * row['theirs']:.3f} ms | "
            f"{row['ratio']:.2f} | {row['spread'][0]:.2f} – {row['spread'][1]:.2f} | {row['target']} |"
        )
    print("\n" + result["notes"])
    out = HERE / "results" / "export.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

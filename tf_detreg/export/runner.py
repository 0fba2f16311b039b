"""Runs one artifact in a process of its own: imports NumPy and the artifact's runtime, and nothing of this package.

Called as `python -P runner.py JOB.json` by `export.verify`. The job names the engine, the artifact, the images (.npy),
where the embeddings go (.npy), and the batch sizes to time; the answer is one line of JSON on standard output.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def _without_keras() -> None:
    """Hide Keras from TensorFlow, which loads it where it finds it: no artifact needs it, and it takes a second."""
    hidden: dict[str, Any] = {"keras": None, "tf_keras": None}
    sys.modules.update(hidden)


def tensorflow(path: str, signature: str) -> Run:
    _without_keras()
    import tensorflow as tf

    model = tf.saved_model.load(path)
    function = model.signatures[signature]
    name = next(iter(function.structured_input_signature[1]))
    return lambda images: {key: value.numpy() for key, value in function(**{name: tf.constant(images)}).items()}


def session(path: str, signature: str) -> Run:
    """Return the loader that TensorFlow Serving uses: a graph, a session, tensors by name."""
    _without_keras()
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        opened = tf.compat.v1.Session(graph=graph)
        meta = tf.compat.v1.saved_model.loader.load(opened, ["serve"], path)
    definition = meta.signature_def[signature]
    name = next(iter(definition.inputs.values())).name
    outputs = {key: info.name for key, info in definition.outputs.items()}
    return lambda images: opened.run(outputs, {name: images})


def litert(path: str, signature: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    run = interpreter.get_signature_runner(signature)
    ((name, details),) = run.get_input_details().items()
    fixed = details["shape_signature"][0]

    def batches(images: np.ndarray) -> dict[str, np.ndarray]:
        images = np.ascontiguousarray(images, details["dtype"])
        step = len(images) if fixed < 0 else int(fixed)
        parts = [run(**{name: images[at : at + step]}) for at in range(0, len(images), step)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    return batches


def openvino(path: str, signature: str) -> Run:
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # A SavedModel's only float output; its name is the graph's, not the signature's.
    return lambda images: {"embeddings": model(images)[0]}


def onnxruntime(path: str, signature: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = opened.get_inputs()
    names = [output.name for output in opened.get_outputs()]
    return lambda images: dict(zip(names, opened.run(names, {given.name: images}), strict=True))


ENGINES = {
    "tensorflow": tensorflow,
    "session": session,
    "litert": litert,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
}


def main(job_path: str) -> None:
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    run = ENGINES[job["engine"]](job["path"], job["signature"])
    inputs = np.load(job["inputs"])
    inputs = inputs.astype(object) if inputs.dtype.kind == "S" else inputs
    parts = [run(inputs[at : at + job["batch"]]) for at in range(0, len(inputs), job["batch"])]
    for key, file in job["outputs"].items():
        np.save(file, np.concatenate([part[key] for part in parts]))
    timings = {batch: latency(run, inputs, batch, job["repeats"]) for batch in job["latency"]}
    # What this process came to know: the proof that the artifact needs nothing else.
    known = [name for name in ("tensorflow", "keras", "tf_detreg", "ai_edge_litert") if sys.modules.get(name)]
    print(json.dumps({"latency": timings, "modules": known}))


def latency(run: Run, inputs: np.ndarray, batch: int, repeats: int) -> float:
    """Return median seconds of a call on `batch` rows."""
    rows = np.resize(inputs, (batch, *inputs.shape[1:])) if inputs.dtype != object else np.resize(inputs, batch)
    run(rows)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(rows)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main(sys.argv[1])

"""Speed options of a run on this machine's GPU: what precision, XLA, steps per call and prefetching change.

    python benchmarks/bench_gpu.py [--backbone ResNet50] [--size 224] [--batch 128] [--steps 30]
    python benchmarks/bench_gpu.py --quick            # seconds, on any machine: does it run at all?

Each row is a short training of the same configuration with one option more, on images in memory: an epoch to warm up,
then one that is measured. About ten minutes on a GPU, most of it XLA's compilation.
"""

import argparse
import json
import os
import pathlib
import platform
import time

# Each with what it adds to the first.
ROWS = {
    "float32, deterministic": {},
    "deterministic = false": {"deterministic": False},
    "+ prefetch_to_device = 2": {"deterministic": False, "prefetch_to_device": 2},
    "+ steps_per_execution = 8": {"deterministic": False, "prefetch_to_device": 2, "steps_per_execution": 8},
    "+ jit_compile = true": {"deterministic": False, "prefetch_to_device": 2, "jit_compile": True},
    "+ precision = mixed_bfloat16": {"deterministic": False, "prefetch_to_device": 2, "precision": "mixed_bfloat16"},
    "+ precision = mixed_float16": {"deterministic": False, "prefetch_to_device": 2, "precision": "mixed_float16"},
    "mixed_bfloat16 and XLA": {
        "deterministic": False,
        "prefetch_to_device": 2,
        "precision": "mixed_bfloat16",
        "jit_compile": True,
    },
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ResNet50", help="of keras.applications, or any that a run can name")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default 224)")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default 128)")
    parser.add_argument("--steps", type=int, default=30, help="steps that are measured (default 30)")
    parser.add_argument("--quick", action="store_true", help="a tiny net and three rows")
    options = parser.parse_args()
    if options.quick:
        options.backbone, options.size, options.batch, options.steps = "small_cnn", 16, 16, 2
    return options


def seconds_a_step(options: argparse.Namespace, changes: dict) -> float:
    """Train two epochs and return the seconds of a step of the second."""
    import keras
    import numpy as np

    from tf_detreg import datasets, training

    rng, classes = np.random.default_rng(0), 4
    labels = np.arange(options.batch * options.steps) % classes
    pixels = rng.integers(0, 256, (len(labels), options.size, options.size, 3), dtype=np.uint8)
    images = datasets.ImageSet(labels, [f"class {n}" for n in range(classes)], pixels)
    nothing = images.subset([])
    config = training.RunConfig.from_dict(
        {
            "backbone": {"name": options.backbone},
            "head": {"name": "Linear", "dim": 128},
            "classes": 0,
            "images": options.batch,
            "epochs": 2,
            **changes,
        }
    )
    keras.backend.clear_session()
    times = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            times.append(time.perf_counter() - self.began)

    parts = training.assemble(config, datasets.Splits(images, nothing, nothing))
    parts.fit(callbacks=[Clock()], verbose=0)
    return times[-1] / parts.steps


def main() -> None:
    options = arguments()
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "a GPU") if gpus else "no GPU"
    rows = dict(list(ROWS.items())[:3]) if options.quick else ROWS
    print(f"{options.backbone}, {options.size} px, batches of {options.batch}, on {device}.\n")
    print("| option | ms a step | images/s | ratio |\n|---|---:|---:|---:|")
    measured, first = [], None
    for name, changes in rows.items():
        took = seconds_a_step(options, changes)
        first = first or took
        print(f"| {name} | {1000 * took:.1f} | {options.batch / took:.0f} | {took / first:.2f} |", flush=True)
        measured.append(
            {
                "what": name,
                "ours": took,
                "peer": next(iter(rows)),
                "theirs": first,
                "ratio": took / first,
                "spread": None,
            }
        )
    if options.quick:
        return
    result = {
        "title": f"Speed options: {options.backbone}, {options.size} px, batches of {options.batch}",
        "machine": f"{device}; {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "rows": measured,
    }
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

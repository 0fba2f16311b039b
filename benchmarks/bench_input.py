"""Input: JPEG batches against Keras' plain directory pipeline, cached features, and sampling over ten million images.

    python benchmarks/bench_input.py [--images 1024] [--features 60000] [--items 10000000] [--rounds 5]

Both JPEG pipelines crop to a square of 224 px and flip at random; only ours draws classes × images. All on every core.
Beside the time that passes stands that of the processor, which tells more where other work runs on the same cores.
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

CLASSES, PER_CLASS, SIDE = 32, 4, 224


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="JPEG files of 500 × 375 px (default 1024)")
    parser.add_argument("--features", type=int, default=60_000, help="rows of 1,280 cached features (default 60000)")
    parser.add_argument(
        "--items", type=int, default=10_000_000, help="indexed images to sample from (default 10000000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved measurements (default 5)")
    parser.add_argument("--sample-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def turns(ours, theirs, rounds: int) -> dict:
    """Median seconds of both, in turns, after one run of each to warm up; ratios by the clock and by the processor."""
    ours(), theirs()
    pairs = [[seconds(work) for work in (ours, theirs)] for _ in range(rounds)]
    clock, processor = ([(a[i], b[i]) for a, b in pairs] for i in (0, 1))
    ratios = [a / b for a, b in clock]
    return {
        "ours": statistics.median(a for a, _ in clock),
        "theirs": statistics.median(b for _, b in clock),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "processor_ratio": statistics.median(a / b for a, b in processor),
    }


def seconds(work) -> tuple[float, float]:
    """Of the clock, and of the processor on all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def row(what: str, peer: str, measured: dict, target: float | None, **more) -> dict:
    low, high = measured["spread"]
    what += f" ({measured['processor_ratio']:.2f} × the processor time)"
    print(
        f"| {what} | {measured['ours']:.3f} s | {peer} | {measured['theirs']:.3f} s | {measured['ratio']:.3f} "
        f"| {low:.3f}–{high:.3f} |",
        flush=True,
    )
    return {"what": what, "peer": peer, **measured, "target": target, **more}


def drain(dataset) -> int:
    """Reads one epoch; returns how many rows it had."""
    return sum(int(labels.shape[0]) for _, labels in dataset)


def write_photographs(folder: pathlib.Path, count: int) -> None:
    """Smooth pictures with some grain, as large on disk as photographs of their size."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for at in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.float32)
        picture = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        path = folder / f"{at % CLASSES:03d}" / f"{at:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path, quality=90)


def measure_jpegs(count: int, rounds: int) -> list[dict]:
    import keras
    import tensorflow as tf

    from tf_detreg import datasets

    def cropped(x, y):
        return flip(tf.image.random_crop(x, (tf.shape(x)[0], SIDE, SIDE, 3))), y

    with tempfile.TemporaryDirectory() as name:
        write_photographs(pathlib.Path(name), count)
        train = datasets.folder(name, image_size=SIDE, validation=0, test=0).train
        flip = keras.layers.RandomFlip("horizontal")

        def plain(side, augment):
            options = {"batch_size": CLASSES * PER_CLASS, "crop_to_aspect_ratio": True, "verbose": False}
            files = keras.utils.image_dataset_from_directory(name, image_size=(side, side), **options)
            return files.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

        cases = {
            "flipped": ({}, plain(SIDE, lambda x, y: (flip(x), y))),
            "cropped at random and flipped": ({"crop": datasets.RandomCrop()}, plain(256, cropped)),
        }
        found = []
        for how, (options, peer) in cases.items():
            ours = train.batches(CLASSES, PER_CLASS, augment=flip, **options)
            measured = turns(lambda ours=ours: drain(ours), lambda peer=peer: drain(peer), rounds)
            what = f"{len(train)} JPEGs of 500 × 375 to {SIDE} px, {CLASSES} × {PER_CLASS}, {how}"
            speed = len(train) / measured["ours"]
            # At least 0.9 times the peer's speed is at most 1.11 times its time.
            found.append(row(what, "image_dataset_from_directory", measured, 1 / 0.9, images_per_second=speed))
    return found


def measure_features(count: int, rounds: int) -> dict:
    import numpy as np
    import tensorflow as tf

    from tf_detreg.datasets import FeatureSet

    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name, "features.f32")
        values = np.random.default_rng(0).standard_normal((count, 1280), np.float32)
        values.tofile(path)
        labels = (np.arange(count) // 5).astype(np.int32)
        kept = np.memmap(path, "<f4", mode="r", shape=values.shape)
        names = [str(i) for i in range(labels[-1] + 1)]
        ours = FeatureSet(kept, np.arange(count), labels, names).batches(CLASSES, PER_CLASS)
        plain = tf.data.Dataset.from_tensor_slices((values, labels)).shuffle(1024)
        plain = plain.batch(CLASSES * PER_CLASS, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
        measured = turns(lambda: drain(ours), lambda: drain(plain), rounds)
        rows = drain(ours)
    speed = rows / measured["ours"]
    what = f"{rows:,} cached features of 1,280 from disk, {speed:,.0f} a second (50,000 asked for)"
    return row(what, "tf.data from memory, shuffled", measured, None, samples_per_second=speed)


def sample(items: int) -> dict:
    """In a process of its own, so that its peak of memory is what sampling needs."""
    import numpy as np

    from tf_detreg.datasets.image_set import ImageSet
    from tf_detreg.datasets.paths import PathList
    from tf_detreg.datasets.sampler import ClassSampler

    empty = peak_mb()
    paths = PathList((f"{at % 100_000:06d}/{at:08d}.jpg" for at in range(items)), "photographs")
    labels = np.arange(items, dtype=np.int32) % np.int32(100_000)
    image_set = ImageSet(labels=labels, class_names=tuple(map(str, range(100_000))), paths=paths, image_size=SIDE)
    began = time.perf_counter()
    sampler = ClassSampler(image_set.labels, CLASSES, PER_CLASS)
    batches = sampler.epoch(0)
    next(batches)
    start = time.perf_counter() - began
    began, count = time.perf_counter(), 2000
    for _ in range(count):
        names = [image_set.paths[at] for at in next(batches).indices]
    speed = count * len(names) / (time.perf_counter() - began)
    return {"start": start, "speed": speed, "peak_mb": peak_mb(), "empty_mb": empty}


def peak_mb() -> float:
    """Of this process alone: `ru_maxrss` would start from that of the process that started it."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure_sampling(items: int) -> dict:
    command = [sys.executable, __file__, "--sample-only", "--items", str(items)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(out.strip().splitlines()[-1])
    what = (
        f"{items:,} indexed images: first batch after {found['start']:.1f} s, then {found['speed']:,.0f} a second, "
        f"{found['peak_mb']:,.0f} MB at most ({found['empty_mb']:,.0f} MB of it TensorFlow's import)"
    )
    print(f"| {what} | | | | | |")
    return {"what": what, "ours": found["start"], "peer": "-", "theirs": None, "ratio": None, "spread": None} | {
        "target": None,
        **found,
    }


def main() -> None:
    options = arguments()
    if options.sample_only:
        print(json.dumps(sample(options.items)))
        return
    import keras
    import PIL
    import tensorflow as tf

    print("| what | ours | peer | theirs | ours / theirs | spread |\n|---|---|---|---|---|---|")
    rows = measure_jpegs(options.images, options.rounds)
    rows += [measure_features(options.features, options.rounds), measure_sampling(options.items)]
    report = {
        "title": "Input",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "pillow": PIL.__version__},
        "rows": rows,
    }
    target = pathlib.Path(__file__).with_name("results") / "input.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

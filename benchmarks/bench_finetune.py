"""Fine-tuning beside PyTorch: processor seconds a step, and R@1 after the same epochs.

    python benchmarks/bench_finetune.py --torch-python VENV/bin/python [--data emoji_styles_96.npz]

VENV is another environment with `pip install torch pytorch-metric-learning`. Both sides take the same weights of
EfficientNet-Lite0 (extra `lite0`), images of 96 pixels, a linear head of 128, Proxy-Anchor, AdamW and frozen batch
normalization, on one thread. The features of both are compared first: they must agree.
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
import tempfile
import time

SIDE, DIM, CLASSES = 96, 128, 100
RATES = {"backbone": 3e-4, "head": 1e-3, "proxies": 1e-1}
# Of EfficientNet-Lite0: kernel, repeats, input and output filters, expansion, stride.
STAGES = [
    (3, 1, 32, 16, 1, 1),
    (3, 2, 16, 24, 6, 2),
    (5, 2, 24, 40, 6, 2),
    (3, 3, 40, 80, 6, 2),
    (5, 3, 80, 112, 6, 1),
    (5, 4, 112, 192, 6, 2),
    (3, 1, 192, 320, 6, 1),
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="the interpreter of an environment with PyTorch; without, ours alone")
    parser.add_argument("--data", help="the emoji set, for R@1; without, steps alone are measured")
    parser.add_argument("--steps", type=int, default=5, help="steps a measurement (default 5)")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="batch sizes (default 32 128)")
    parser.add_argument("--images", type=int, default=1600, help="emoji that are trained on (default 1600)")
    parser.add_argument("--epochs", type=int, default=1, help="over them (default 1)")
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    return parser.parse_args()


def order(count: int, epochs: int, batch: int):
    """Return the rows of each batch, the same on both sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [rows for _ in range(epochs) for rows in np.array_split(rng.permutation(count), count // batch)]


def random_batch(batch: int):
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (batch, SIDE, SIDE, 3)).astype("float32"), (np.arange(batch) // 2 % CLASSES).astype(
        "int64"
    )


def processor_seconds(step, count: int) -> float:
    """Return the median processor seconds of a step, after two that warm up."""
    times = []
    for _ in range(count + 2):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return statistics.median(times[2:])


# Ours.


def our_model(classes: int):
    import keras

    from tf_detreg import backbones, heads, losses, training

    keras.utils.set_random_seed(0)
    backbone = backbones.build("efficientnet_lite0", SIDE, weights="imagenet", freeze_batch_norm=True, drop_path=0.0)
    embedder = keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone, heads.Linear(DIM, name="head")])
    model = training.MetricModel(embedder, losses.ProxyAnchor(classes))
    model.compile(training.optimizer(RATES["backbone"], RATES["head"], RATES["proxies"] / RATES["head"]))
    return model


def ours(options, task: dict) -> dict:
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    found = {"features": our_model(CLASSES).backbone.predict(task["images"], verbose=0)}
    for batch in options.batches:
        model = our_model(CLASSES)
        model.make_train_function()
        batches = iter(tf.data.Dataset.from_tensors(random_batch(batch)).repeat())
        step = functools.partial(model.train_function, batches)
        found[f"step {batch}"] = processor_seconds(lambda s=step: float(s()["loss"]), options.steps)
    if "train" in task:
        model = our_model(int(task["labels"].max()) + 1)
        model.make_train_function()
        rows = order(len(task["train"]), options.epochs, 32)
        batches = iter(
            tf.data.Dataset.from_generator(
                lambda: ((task["train"][r].astype("float32"), task["labels"][r]) for r in rows),
                output_types=(tf.float32, tf.int64),
                output_shapes=((None, SIDE, SIDE, 3), (None,)),
            )
        )
        began = time.process_time()
        for _ in rows:
            model.train_function(batches)
        found["training"] = time.process_time() - began
        found["embeddings"] = model.embedder.predict(task["unseen"].astype("float32"), batch_size=64, verbose=0)
    return {name: np.asarray(value) for name, value in found.items()}


# PyTorch: run by the other interpreter, which has no TensorFlow.


def torch_net(tensors: dict):
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Conv(nn.Conv2d):
        """A convolution with TensorFlow's padding, which these weights were trained with."""

        def forward(self, x):
            pads = []
            for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
                total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
                pads += [total // 2, total - total // 2]
            return super().forward(F.pad(x, pads) if any(pads) else x)

    def norm(filters):
        return nn.BatchNorm2d(filters, eps=1e-3)

    class Block(nn.Module):
        def __init__(self, kernel, filters, out, expansion, stride):
            super().__init__()
            wide = filters * expansion
            if expansion != 1:
                self._expand_conv, self._bn0 = Conv(filters, wide, 1, bias=False), norm(wide)
            self._depthwise_conv = Conv(wide, wide, kernel, stride, groups=wide, bias=False)
            self._bn1, self._project_conv, self._bn2 = norm(wide), Conv(wide, out, 1, bias=False), norm(out)
            self.expands, self.adds = expansion != 1, stride == 1 and filters == out

        def forward(self, x):
            y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
            y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
            return x + y if self.adds else y

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self._conv_stem, self._bn0 = Conv(3, 32, 3, 2, bias=False), norm(32)
            blocks = []
            for kernel, repeats, filters, out, expansion, stride in STAGES:
                for number in range(repeats):
                    first = number == 0
                    blocks.append(Block(kernel, filters if first else out, out, expansion, stride if first else 1))
            self._blocks = nn.ModuleList(blocks)
            self._conv_head, self._bn1 = Conv(320, 1280, 1, bias=False), norm(1280)

        def forward(self, x):
            x = F.relu6(self._bn0(self._conv_stem((x - 127) / 128)))
            for block in self._blocks:
                x = block(x)
            return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

        def train(self, mode=True):
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

    net = Net()
    own = net.state_dict()
    for name in own:
        if name in tensors:
            own[name] = torch.from_numpy(tensors[name])
    net.load_state_dict(own)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return net


def torch_side(options) -> None:
    """Measure PyTorch: reads a task from a file, and writes what `ours` returns beside it."""
    import numpy as np
    import torch
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    torch.set_num_threads(1)
    with np.load(options.torch) as file:
        task = {name: file[name] for name in file.files}
    tensors = {name.removeprefix("tensor "): task[name] for name in task if name.startswith("tensor ")}

    def made(classes, layout):
        torch.manual_seed(0)
        net, head = torch_net(tensors).to(memory_format=layout), torch.nn.Linear(1280, DIM)
        loss = ProxyAnchorLoss(classes, DIM, margin=0.1, alpha=32)
        groups = [
            {"params": [p for p in net.parameters() if p.requires_grad], "lr": RATES["backbone"], "weight_decay": 1e-4},
            {"params": head.parameters(), "lr": RATES["head"], "weight_decay": 1e-4},
            {"params": loss.parameters(), "lr": RATES["proxies"], "weight_decay": 0.0},
        ]
        # Keras' epsilon.
        optimizer = torch.optim.AdamW(groups, eps=1e-7)

        def embed(images):
            x = torch.from_numpy(images).permute(0, 3, 1, 2).to(memory_format=layout)
            return torch.nn.functional.normalize(head(net(x)))

        def step(images, labels):
            optimizer.zero_grad()
            value = loss(embed(images), torch.from_numpy(labels))
            value.backward()
            optimizer.step()
            return float(value.detach())

        net.train()
        return net, embed, step

    found = {}
    for name, layout in (("", torch.contiguous_format), (" channels last", torch.channels_last)):
        for batch in options.batches:
            step, data = made(CLASSES, layout)[2], random_batch(batch)
            found[f"step {batch}{name}"] = processor_seconds(lambda s=step, d=data: s(*d), options.steps)
    net, _, _ = made(CLASSES, torch.channels_last)
    with torch.no_grad():
        found["features"] = net(torch.from_numpy(task["images"]).permute(0, 3, 1, 2)).numpy()
    if "train" in task:
        _, embed, step = made(int(task["labels"].max()) + 1, torch.channels_last)
        began = time.process_time()
        for rows in order(len(task["train"]), options.epochs, 32):
            step(task["train"][rows].astype("float32"), task["labels"][rows])
        found["training"] = time.process_time() - began
        with torch.no_grad():
            parts = np.array_split(task["unseen"].astype("float32"), max(1, len(task["unseen"]) // 64))
            found["embeddings"] = np.concatenate([embed(part).numpy() for part in parts])
    found["version"] = torch.__version__
    np.savez(pathlib.Path(options.torch).with_name("found.npz"), **found)


def task_of(options) -> dict:
    """Return what both sides work on: images to compare features on, and emoji of classes to train and not to train."""
    import numpy as np

    task = {"images": random_batch(4)[0]}
    if options.data:
        from tf_detreg import datasets
        from tf_detreg.experiments.data import join

        without = ["fluent-emoji-flat", "fluent-3d"]
        whole = join(datasets.emoji(options.data, without=without, validation=0.0, test=0.0))
        classes = np.random.default_rng(0).permutation(whole.num_classes)
        parts = [whole.select_classes(classes[:half]) for half in (len(classes) // 2,)]
        seen, unseen = parts[0], whole.select_classes(classes[len(classes) // 2 :])
        rows = np.argsort(seen.labels, kind="stable")[: options.images]
        task |= {"train": seen.images[rows], "labels": np.unique(seen.labels[rows], return_inverse=True)[1]}
        rows = np.argsort(unseen.labels, kind="stable")[: options.images]
        task |= {"unseen": unseen.images[rows], "unseen labels": unseen.labels[rows]}
    return task


def main() -> None:
    options = arguments()
    if options.torch:
        torch_side(options)
        return
    import numpy as np

    from tf_detreg import retrieval
    from tf_detreg.backbones.efficientnet_lite0 import imagenet_tensors

    task = task_of(options)
    mine, theirs = ours(options, task), {}
    if options.torch_python:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "task.npz"
            np.savez(path, **task, **{f"tensor {name}": array for name, array in imagenet_tensors().items()})
            command = [options.torch_python, __file__, "--torch", str(path), "--steps", str(options.steps)]
            command += ["--epochs", str(options.epochs), "--batches", *map(str, options.batches)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            with np.load(path.with_name("found.npz")) as file:
                theirs = {name: file[name] for name in file.files}
        apart = float(np.abs(mine["features"] - theirs["features"]).max() / np.abs(mine["features"]).max())
        print(f"Features differ by {apart:.1e} of the largest.")
        if apart > 1e-3:
            raise SystemExit("The two nets do not compute the same: nothing is compared.")
    rows, notes = [], ["Processor seconds on one thread. Ours and PyTorch's features agree before training."]
    for batch in options.batches:
        for name in ("", " channels last"):
            other = float(theirs[f"step {batch}{name}"]) if theirs else None
            own = float(mine[f"step {batch}"])
            rows.append(
                {
                    "what": f"a step of {batch}",
                    "ours": own,
                    "peer": f"PyTorch{',' if name else ''}{name}",
                    "theirs": other,
                    "ratio": own / other if other else None,
                    "spread": None,
                }
            )
    if options.data:
        for side, found in (("ours", mine), ("PyTorch", theirs)):
            if found:
                report = retrieval.evaluate(
                    found["embeddings"], task["unseen labels"], k=(1,), engine="exact", progress=False
                )
                trained = f"{options.epochs} epoch(s) of {options.images} emoji in batches of 32"
                seconds = float(found["training"])
                notes.append(
                    f"R@1 on unseen classes after {trained}, {side}: {100 * report.recall[1]:.1f} %, {seconds:.0f} s."
                )
    import keras
    import tensorflow as tf

    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    if theirs:
        versions["torch"] = str(theirs["version"])
    result = {
        "title": f"Fine-tuning beside PyTorch: EfficientNet-Lite0, {SIDE} px, Proxy-Anchor, AdamW",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": versions,
        "notes": "\n".join(f"- {note}" for note in notes),
        "rows": rows,
    }
    print(json.dumps(result, indent=2))
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "finetune.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

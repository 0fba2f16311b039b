"""Invertible heads, forward + R + backward, against other flow libraries; and what a flow head adds to a training step.

    python -m benchmarks.bench_heads [--runs 15] [--skip-step]

Needs `pip install torch normflows zuko nflows FrEIA`. All sides run in this process, in turn, on one thread each. A
peer that is not installed is left out and named in the notes.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH, DIM, HIDDEN, DEPTH = 128, 512, 512, 12
TOLERANCE = 1e-5


def our_step(head):
    """Forward, R and all gradients of a head on random features."""
    import tensorflow as tf

    x = tf.random.normal((BATCH, head.dim))
    weights = tf.random.normal((BATCH, head.dim))
    head(x, training=True)
    variables = [v.value for v in head.trainable_variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            y, log_scales = head.flow(head.project(x, True), True)
            loss = tf.reduce_sum(y * weights) + head.regularity(log_scales)
        return tape.gradient(loss, variables)

    return lambda: step()[-1].numpy()


def bare_products():
    """The six matrix products per coupling that forward and backward cannot do without."""
    import tensorflow as tf

    half = tf.random.normal((BATCH, DIM // 2))
    hidden = tf.random.normal((BATCH, HIDDEN))
    out = tf.random.normal((BATCH, DIM))
    pairs = [(tf.random.normal((DIM // 2, HIDDEN)), tf.random.normal((HIDDEN, DIM))) for _ in range(DEPTH)]

    @tf.function
    def step():
        results = []
        for layer, (first, second) in enumerate(pairs):
            # Shifted a little, or the six would be computed once for all layers.
            a, h, g = (x + 1e-9 * layer for x in (half, hidden, out))
            results += [
                tf.matmul(a, first),
                tf.matmul(h, second),
                tf.matmul(g, second, transpose_b=True),
                tf.matmul(h, g, transpose_a=True),
                tf.matmul(h, first, transpose_b=True),
                tf.matmul(a, h, transpose_a=True),
            ]
        return results

    return lambda: step()[-1].numpy()


def tfp_chain():
    """TFP's own Chain of RealNVP with Keras networks, computing output and log-determinant, as its guide has it."""
    import keras
    import tensorflow as tf
    from tensorflow_probability import bijectors as tfb

    nets = [
        keras.Sequential([keras.Input((DIM // 2,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(DIM)])
        for _ in range(DEPTH)
    ]
    x, weights = tf.random.normal((BATCH, DIM)), tf.random.normal((BATCH, DIM))
    variables = [v.value for net in nets for v in net.trainable_variables]

    def template(net):
        def shift_and_log_scale(z, _):
            shift, raw = tf.split(net(z), 2, axis=-1)
            return shift, 0.5 * tf.tanh(raw / 0.5)

        return shift_and_log_scale

    @tf.function
    def step():
        chain = tfb.Chain(
            [
                tfb.RealNVP(num_masked=(-1) ** layer * (DIM // 2), shift_and_log_scale_fn=template(net))
                for layer, net in enumerate(nets)
            ]
        )
        with tf.GradientTape() as tape:
            log_det = chain.forward_log_det_jacobian(tf.identity(x), event_ndims=1)
            loss = tf.reduce_sum(chain.forward(x) * weights) + tf.reduce_mean(log_det) / DIM
        return tape.gradient(loss, variables)

    return lambda: step()[-1].numpy()


def torch_step(modules, forward):
    """Forward, log-determinant and all gradients of `forward(x) -> (y, log_det)` in PyTorch."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, weights = torch.randn(BATCH, DIM), torch.randn(BATCH, DIM)

    def step():
        for module in modules:
            module.zero_grad(set_to_none=True)
        y, log_det = forward(x)
        ((y * weights).sum() + log_det.mean() / DIM).backward()

    return step


def normflows_step():
    import normflows
    import torch

    layers = []
    for _ in range(DEPTH):
        net = normflows.nets.MLP([DIM // 2, HIDDEN, DIM], init_zeros=True)
        layers += [normflows.flows.AffineCouplingBlock(net), normflows.flows.Permute(DIM, mode="swap")]
    layers = torch.nn.ModuleList(layers)

    def forward(x):
        total = 0.0
        for layer in layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    return torch_step([layers], forward)


def zuko_step():
    import zuko

    flow = zuko.flows.RealNVP(DIM, transforms=DEPTH, hidden_features=[HIDDEN])
    return torch_step([flow], lambda x: flow.transform().call_and_ladj(x))


def nflows_step():
    import torch
    from nflows.transforms import AffineCouplingTransform, CompositeTransform
    from nflows.utils import create_alternating_binary_mask

    class Net(torch.nn.Sequential):
        def forward(self, x, context=None):
            return super().forward(x)

    def make(inputs, outputs):
        return Net(torch.nn.Linear(inputs, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, outputs))

    flow = CompositeTransform(
        [
            AffineCouplingTransform(create_alternating_binary_mask(DIM, even=layer % 2 == 0), make)
            for layer in range(DEPTH)
        ]
    )
    return torch_step([flow], flow)


def freia_step(mixing: bool):
    """AllInOneBlock is FrEIA's Glow step: affine coupling, global scaling and, with `mixing`, a dense 1×1."""
    import FrEIA.framework as ff
    import FrEIA.modules as fm
    import torch

    def make(inputs, outputs):
        return torch.nn.Sequential(torch.nn.Linear(inputs, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, outputs))

    flow = ff.SequenceINN(DIM)
    for _ in range(DEPTH):
        flow.append(fm.AllInOneBlock, subnet_constructor=make, permute_soft=mixing)
    return torch_step([flow], flow)


def zuko_cnf(exact: bool):
    """zuko's adaptive continuous flow with the same field as FFJORD's."""
    import torch
    from zuko.transforms import FreeFormJacobianTransform

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = torch.nn.Linear(DIM + 1, HIDDEN), torch.nn.Linear(HIDDEN, DIM)

        def forward(self, t, x):
            return self.outer(torch.tanh(self.inner(torch.cat([x, t.expand(*x.shape[:-1], 1)], dim=-1))))

    field = Field()

    def forward(x):
        transform = FreeFormJacobianTransform(
            field, 0.0, 1.0, phi=tuple(field.parameters()), atol=TOLERANCE, rtol=TOLERANCE, exact=exact
        )
        return transform.call_and_ladj(x)

    return torch_step([field], forward)


def grown(head):
    """The head with weights as far from their near-zero start as PyTorch's default start is from zero."""
    import tensorflow as tf

    head.build((None, DIM))
    for variable in head.trainable_variables:
        if variable.path.endswith(("outer", "kernel")):
            variable.assign(tf.random.uniform(variable.shape, -1, 1) / variable.shape[0] ** 0.5)
    return head


def in_turn(first, second, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of both, measured A B A B … after a warm-up of each."""
    times = ([], [])
    for function in (first, second):
        function()
        function()
    for _ in range(runs):
        for function, seconds in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return times


def compare(what, ours, peer, theirs, target, runs) -> dict:
    mine, other = in_turn(ours, theirs, runs)
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    row = {
        "what": what,
        "ours": statistics.median(mine),
        "peer": peer,
        "theirs": statistics.median(other),
        "ratio": statistics.median(mine) / statistics.median(other),
        "spread": [min(ratios), max(ratios)],
        "target": target,
    }
    gc.collect()
    return row


def head_rows(runs: int) -> tuple[list[dict], list[str]]:
    from tf_detreg import heads

    real_nvp = our_step(grown(heads.RealNVP(DIM, DEPTH, HIDDEN)))
    glow = our_step(grown(heads.Glow(DIM, DEPTH, HIDDEN)))
    adaptive = {"solver": "dormand_prince", "tolerance": TOLERANCE}
    exact = our_step(grown(heads.FFJORD(DIM, HIDDEN, **adaptive)))
    noisy = our_step(grown(heads.FFJORD(DIM, HIDDEN, trace="hutchinson", **adaptive)))
    sizes = f"T={DEPTH}, d={DIM}, hidden {HIDDEN}, B={BATCH}"
    flow, ode = f"RealNVP {sizes}, step", f"FFJORD d={DIM}, tolerance {TOLERANCE:g}, step"
    plan = [
        (flow, real_nvp, "normflows", normflows_step, 0.70),
        (flow, real_nvp, "zuko", zuko_step, 0.70),
        (flow, real_nvp, "nflows", nflows_step, 0.70),
        (flow, real_nvp, "FrEIA AllInOneBlock", lambda: freia_step(False), 0.70),
        (flow, real_nvp, "TFP Chain, forward and log-det", tfp_chain, 0.45),
        (flow, real_nvp, "bare matrix products", bare_products, 1.3),
        (f"Glow {sizes}, step", glow, "FrEIA AllInOneBlock with 1×1", lambda: freia_step(True), 0.9),
        (f"{ode}, Hutchinson", noisy, "zuko CNF, Hutchinson", lambda: zuko_cnf(False), 1.0),
        (f"{ode}, exact trace", exact, "zuko CNF, Hutchinson", lambda: zuko_cnf(False), 1.0),
    ]
    rows, absent = [], []
    for what, ours, peer, make, target in plan:
        try:
            theirs = make()
        except ImportError as error:
            absent.append(f"{peer} ({error})")
            continue
        rows.append(compare(what, ours, peer, theirs, target, runs))
        print(f"{peer}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    return rows, absent


def training_step(head):
    """A whole training step (EfficientNet-Lite0, 224 px, batch 32, a linear loss on the embeddings, AdamW)."""
    import keras
    import tensorflow as tf

    from tf_detreg import backbones

    model = keras.Sequential([backbones.build("efficientnet_lite0", (224, 224)), head])
    optimizer = keras.optimizers.AdamW(1e-4)
    images, target = tf.random.uniform((32, 224, 224, 3), 0, 255), tf.random.normal((32, DIM))
    model(images[:1])
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            out = model(images, training=True)
            loss = tf.reduce_sum(out * target) + tf.add_n([*model.losses, 0.0])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: step().numpy()


def step_rows(runs: int) -> list[dict]:
    from tf_detreg import heads

    plain = training_step(heads.Linear(DIM))
    what = f"training step, EfficientNet-Lite0 224 px, batch 32, {{}} T={DEPTH}, d={DIM}, hidden {HIDDEN}"
    flow = training_step(heads.RealNVP(DIM, DEPTH, HIDDEN, penalty=0.05))
    rows = [compare(what.format("RealNVP"), flow, "linear head", plain, 1.05, runs)]
    del flow
    pair = training_step(heads.Dueling(heads.RealNVP(DIM, DEPTH, HIDDEN, penalty=0.05)))
    return [*rows, compare(what.format("Dueling"), pair, "linear head", plain, 1.08, runs)]


def our_real_nvp():
    from tf_detreg import heads

    return our_step(heads.RealNVP(DIM, DEPTH, HIDDEN))


MEMORY = {
    "ours": our_real_nvp,
    "normflows": normflows_step,
    "zuko": zuko_step,
    "nflows": nflows_step,
}


def peak_of(name: str, runs: int = 3) -> float:
    """Median of the megabytes that ten steps add to the process, each time in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_heads", "--memory", name]
    folder = Path(__file__).parent.parent
    done = [subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True) for _ in range(runs)]
    return statistics.median(float(one.stdout.split()[-1]) for one in done)


def print_memory(name: str) -> None:
    """Imports and warms up the framework first, so that only the flow's own memory counts; all use one thread.

    A second thread would run operations ahead of time and allocate from a heap of its own.
    """
    if name == "ours":
        one_thread()
        from tf_detreg import heads

        our_step(heads.RealNVP(8, DEPTH, 8))()
    else:
        import torch

        torch.set_num_threads(1)
        x = torch.ones(64, 64, requires_grad=True)
        (x @ x).sum().backward()
        __import__(name)
    # Forget the peak of the imports: what follows is the peak of the flow (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    step = MEMORY[name]()
    for _ in range(10):
        step()
    print(status("VmHWM") - before)


def one_thread() -> None:
    """For TensorFlow; PyTorch is told by `torch.set_num_threads`."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def status(field: str) -> float:
    """A figure of this process in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def memory_notes() -> str:
    used = {name: peak_of(name) for name in MEMORY}
    listed = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in used.items())
    return (
        "Peak memory that building the RealNVP and ten steps on one thread add to a warm process (its weights are "
        f"19 MB; medians of three processes): {listed}."
    )


def markdown(rows: list[dict]) -> str:
    lines = ["| what | ours (ms) | peer | theirs (ms) | ratio | spread | target |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        spread = "–".join(f"{value:.2f}" for value in row["spread"])
        lines.append(
            f"| {row['what']} | {1000 * row['ours']:.1f} | {row['peer']} | {1000 * row['theirs']:.1f} "
            f"| {row['ratio']:.2f} | {spread} | ≤ {row['target']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="turns per comparison (default 15)")
    parser.add_argument("--skip-step", action="store_true", help="leave out the whole training steps")
    parser.add_argument("--memory", choices=MEMORY, help="print the megabytes that one flow takes, and nothing else")
    options = parser.parse_args()
    if options.memory:
        print_memory(options.memory)
        return
    one_thread()
    rows, absent = head_rows(options.runs)
    notes = f"Not installed: {', '.join(absent)}." if absent else memory_notes()
    if not options.skip_step:
        rows += step_rows(max(5, options.runs // 3))
    print(markdown(rows), notes, sep="\n\n")
    names = ["tensorflow", "keras", "tensorflow-probability", "torch", "normflows", "zuko", "nflows", "FrEIA"]
    installed = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    result = {
        "title": "Invertible heads",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {name: installed[name] for name in names if name in installed},
        "notes": notes,
        "rows": rows,
    }
    target = Path(__file__).parent / "results" / "heads.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""Retrieval: exact ranks against faiss, pytorch-metric-learning and a bare matrix product; ScaNN against exact search.

    python benchmarks/bench_retrieval.py [--cores 1] [--queries 8192] [--scann-items 1000000]

Exact search is measured on a part of the queries against the whole gallery: its time is proportional to the queries.
On one core times are CPU seconds, which equal those of the clock unless other work takes the core away meanwhile.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

ROUNDS = 3
clock = time.perf_counter
VECTORS = (
    "The vectors for ScaNN and the automatic choice lie in classes of ten and fill about 20 of their 128 dimensions, "
    "as trained embeddings do; the docstring of `clustered` in the script says how that was seen."
)
NOISE = 0.73  # within classes of 10: at 1,000,000 items R@1 is then 0.8


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=1, help="cores to run on (default 1)")
    parser.add_argument("--items", type=int, default=60_000, help="gallery of the exact part (default 60000)")
    parser.add_argument("--queries", type=int, default=8_192, help="queries of the exact part (default 8192)")
    parser.add_argument("--scann-items", type=int, default=1_000_000, help="gallery of the ScaNN part; 0 leaves it out")
    parser.add_argument("--auto-items", type=int, default=100_000, help="for the automatic choice; 0 leaves it out")
    parser.add_argument("--spectrum-of", metavar="RUN", help="only print how many dimensions a run's embeddings fill")
    parser.add_argument("--memory-of", type=int, help="only measure the memory of exact search in so large a gallery")
    return parser.parse_args()


def turns(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float, list]:
    """Median seconds of both, in turns; and the smallest and largest ratio. Callers have run both before."""
    times = []
    for _ in range(rounds):
        pair = []
        for work in (ours, theirs):
            began = clock()
            work()
            pair.append(clock() - began)
        times.append(pair)
    ratios = [a / b for a, b in times]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), [min(ratios), max(ratios)]


def row(what: str, peer: str, measured: tuple[float, float, list], target: float | None, **more) -> dict:
    ours, theirs, spread = measured
    print(f"{what} | {ours:.3f} s | {peer} | {theirs:.3f} s | {ours / theirs:.3f} | {spread}", flush=True)
    return {"what": what, "ours": ours, "peer": peer, "theirs": theirs, "ratio": ours / theirs, "spread": spread} | {
        "target": target,
        **more,
    }


def spectrum_of(run: str) -> None:
    """Effective dimensions, (Σλ)² / Σλ², of the covariances within and between the classes of a run's test set."""
    import numpy as np

    from tf_detreg import training

    opened = training.load_run(run)
    part = opened.splits()[-1]
    found = training.embed(opened.embedder, part)
    labels, points = np.unique(part.labels[found.indices], return_inverse=True)[1], found.embeddings
    means = np.stack([points[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    for name, vectors in (("within", points - means[labels]), ("between", means)):
        values = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
        falls = ", ".join(f"{values[n - 1] / values[0]:.4f}" for n in (1, 2, 4, 8, 16, 32, 64) if n <= len(values))
        filled = values.sum() ** 2 / (values**2).sum()
        print(f"{part.name}, {name} classes: {filled:.1f} of {len(values)} dimensions; eigenvalues 1, 2, 4, …: {falls}")


def clustered(items: int, dim: int, size: int, noise: float, flat: bool = False, seed: int = 0):
    """Unit vectors of classes of `size`, whose centers lie in clusters themselves; shuffled.

    Trained embeddings do not fill their space: eigenvalues of their covariances, within and between classes, fall about
    as here, to about 20 effective dimensions of 128 (`tf-detreg demo`, then `--spectrum-of` its run); their directions
    are not those of the axes. `flat` makes isotropic clouds instead, the hardest case for any index.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    classes = -(-items // size)
    power = np.exp(-1.2 * (np.arange(1, dim + 1) / 16) ** 1.25)
    mix = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * np.sqrt(dim * power / power.sum())
    mix = np.eye(dim, dtype=np.float32) if flat else mix.T.astype(np.float32)
    tops = rng.standard_normal((max(1, classes // 100), dim), np.float32) @ mix
    centers = tops[rng.integers(len(tops), size=classes)]
    centers += np.float32(0.8) * rng.standard_normal((classes, dim), np.float32) @ mix
    labels = rng.permutation(np.repeat(np.arange(classes), size)[:items])
    points = np.empty((items, dim), np.float32)
    for start in range(0, items, 50_000):
        part = slice(start, start + 50_000)
        points[part] = centers[labels[part]]
        points[part] += np.float32(noise) * rng.standard_normal(points[part].shape, np.float32) @ mix
        points[part] /= np.linalg.norm(points[part], axis=1, keepdims=True)
    return points, labels


def exact_rows(items: int, queries: int) -> list[dict]:
    import faiss
    import numpy as np
    import tensorflow as tf
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    from tf_detreg.retrieval import exact, protocols

    points, labels = clustered(items, 512, 5, noise=2.3, flat=True)
    rules = protocols.choose(labels, None, None, None)
    rows, ks = np.arange(queries), (1, 10, 100, 1000)
    flat = faiss.IndexFlatIP(512)
    flat.add(points)
    gallery = tf.constant(np.ascontiguousarray(points.T))

    def ours(what: str, count: int = queries) -> dict:
        return exact.per_query(points, points, rules, ks, what, rows[:count], progress=False).values

    def by_faiss() -> np.ndarray:
        ids = flat.search(points[rows], max(ks) + 1)[1]
        hit = (labels[ids] == labels[rows, None]) & (ids != rows[:, None])
        return np.array([hit[:, : k + 1].any(axis=1).mean() for k in ks])  # self is among the first k + 1

    def product() -> None:
        for start in range(0, queries, 512):
            np.asarray(tf.matmul(points[start : start + 512], gallery))

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    more = (*names, "mean_average_precision", "mean_reciprocal_rank")
    some = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
    every = AccuracyCalculator(include=more, k=None, device=torch.device("cpu"))
    tensors = torch.from_numpy(points), torch.from_numpy(labels)

    def by_pml(calculator=some, count: int = queries) -> dict:
        x, y = tensors
        return calculator.get_accuracy(x[:count], y[:count], x, y, ref_includes_query=True)

    mine, theirs = ours("all"), by_pml()
    print(f"R@1 {mine['recall@1'].mean():.4f}, pytorch-metric-learning {theirs['precision_at_1']:.4f}")
    print(f"MAP@R {mine['map@r'].mean():.5f}, theirs {theirs['mean_average_precision_at_r']:.5f}")
    product()
    print(f"R@k {[float(mine[f'recall@{k}'].mean()) for k in ks]}, faiss {by_faiss().tolist()}")
    size = f"{queries:,} queries in {items:,} × 512"
    recall = f"R@1, 10, 100, 1000; {size}"
    return [
        row(recall, "faiss-cpu flat, k = 1,001, then counting", turns(lambda: ours("recall"), by_faiss), 0.6),
        row(recall, "the bare matrix product (TensorFlow)", turns(lambda: ours("recall"), product), 1.6),
        row(
            f"all metrics; {size}",
            "pytorch-metric-learning, R@1, R-precision and MAP@R alone (4 neighbors)",
            turns(lambda: ours("all"), by_pml),
            0.5,
        ),
        row(
            f"all metrics; 512 queries in {items:,} × 512",
            "pytorch-metric-learning, with MAP and MRR over the whole ranking",
            turns(lambda: ours("all", 512), lambda: by_pml(every, 512)),
            0.5,
        ),
    ]


def memory_of(items: int) -> float:
    """Peak resident memory (GB) of the exact engine beyond the embeddings, sampled while it runs."""
    import numpy as np
    import psutil

    from tf_detreg.retrieval import exact, protocols

    points, labels = clustered(items, 128, 10, noise=NOISE)
    rules = protocols.choose(labels, None, None, None)
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    exact.per_query(points, points, rules, (1, 10), "all", np.arange(512), progress=False)
    done.set()
    watcher.join()
    return (peak[0] - before) / 1e9


def memory_row(items: int, cores: int) -> dict:
    """In a process of its own, so that nothing that ran before has left memory to reuse."""
    command = [sys.executable, __file__, "--memory-of", str(items), "--cores", str(cores)]
    beyond = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    what = f"memory of exact search beyond the embeddings, {items:,} × 128, a fresh process (GB, in the ratio column)"
    print(f"{what}: {beyond:.3f}", flush=True)
    return {"what": what, "ours": None, "peer": "", "theirs": None, "ratio": beyond, "spread": None, "target": 1.0}


def scann_rows(items: int) -> list[dict]:
    """The tuned tree against exact search, and the same tree with fewer and more leaves visited."""
    import numpy as np

    from tf_detreg.retrieval import approximate, exact

    points, labels = clustered(items, 128, 10, noise=NOISE)
    began = clock()
    tuned = approximate.calibrate(points, points, 10, np.arange(items), 0.99, progress=False)
    seconds = clock() - began
    tree, sample = tuned.tree, tuned.sample
    few = np.sort(np.random.default_rng(1).choice(items, 512, replace=False))
    many = np.sort(np.random.default_rng(2).choice(items, 20_000, replace=False))
    ids = exact.search(points[few], points, 1, few, False)[0][:, 0]
    truth = float((labels[ids] == labels[few]).mean())
    kth = approximate.truth(points[sample], points, 10, sample, False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    best, rows = tree.visited, []
    for visited in (best, best // 4, best // 2, 2 * best, 4 * best):
        tree.visited = min(max(1, visited), tree.leaves)
        found = tree.found(points[sample], 10, sample, kth).mean()
        ours, theirs, spread = turns(
            lambda: tree.search(points[many], 10, many), lambda: exact.search(points[few], points, 10, few, False)
        )
        share = len(few) / len(many)
        what = f"ScaNN's throughput over exact search, {items:,} × 128: recall@10 {found:.4f}"
        if visited == best:
            settings = ", ".join(f"{name} {value}" for name, value in tree.settings().items())
            what += (
                f" ({tuned.interval[0]:.4f} – {tuned.interval[1]:.4f}), tuned by itself; true R@1 {truth:.2f}; "
                f"{settings}; building and tuning {seconds:.0f} s; peak memory of the process {peak:.1f} GB"
            )
        else:
            what += f", the same tree with {tree.visited} leaves visited"
        rows.append(
            {
                "what": what,
                "ours": ours / len(many),
                "peer": "exact search, a query",
                "theirs": theirs / len(few),
                "ratio": theirs / ours / share,
                "spread": [1 / bound / share for bound in reversed(spread)],
                "target": 20 if visited == best else None,
                "higher_is_better": True,
            }
        )
        print(f"{what}: {rows[-1]['ratio']:.1f} {rows[-1]['spread']}", flush=True)
    return rows


def auto_row(items: int) -> dict:
    from tf_detreg import retrieval

    points, labels = clustered(items, 128, 10, noise=NOISE)
    times, reports = {}, {}
    for engine in ("exact", "scann", "auto"):
        began = clock()
        reports[engine] = retrieval.evaluate(
            points, labels, k=(1, 10), metrics="recall", engine=engine, resamples=0, progress=False
        )
        times[engine] = clock() - began
        print(f"{engine}: {times[engine]:.1f} s, R@1 {reports[engine].recall[1]:.4f}", flush=True)
    chosen = reports["auto"].engine
    other = "scann" if chosen == "exact" else "exact"
    what = f"the automatic choice at {items:,} × 128 is {chosen} ({times['auto']:.1f} s with the choosing)"
    measured = times[chosen], times[other], [times[chosen] / times[other]] * 2
    return row(what, other, measured, 1.0)


def main() -> None:
    global clock
    options = arguments()
    clock = time.process_time if options.cores == 1 else time.perf_counter
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.cores)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.cores)
    if options.spectrum_of:
        spectrum_of(options.spectrum_of)
        return
    if options.memory_of:
        print(memory_of(options.memory_of))
        return
    import faiss
    import torch

    faiss.omp_set_num_threads(options.cores)
    torch.set_num_threads(options.cores)
    began = time.perf_counter()
    rows = exact_rows(options.items, options.queries)
    if options.auto_items:
        rows.append(auto_row(options.auto_items))
    if options.scann_items:
        rows.append(memory_row(options.scann_items, options.cores))
        rows += scann_rows(options.scann_items)
    print(f"{time.perf_counter() - began:.0f} s in all, {time.process_time():.0f} s of CPU time")
    write(rows, options.cores)


def write(rows: list[dict], cores: int) -> None:
    import importlib.metadata

    packages = ("tensorflow", "numpy", "scann", "faiss-cpu", "torch", "pytorch-metric-learning")
    result = {
        "title": "Retrieval",
        "machine": f"{platform.processor() or platform.machine()}, {cores} core(s)",
        "notes": VECTORS + (" Times are CPU seconds of one core." if cores == 1 else ""),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "rows": rows,
    }
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "retrieval.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n| what | ours (s) | peer | theirs (s) | ratio | spread | target |\n|---|---:|---|---:|---:|---:|---:|")
    for line in rows:
        cells = [
            line["what"],
            line["ours"],
            line["peer"],
            line["theirs"],
            line["ratio"],
            line["spread"],
            line["target"],
        ]
        print("| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


if __name__ == "__main__":
    main()

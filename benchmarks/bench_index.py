"""A living index of a million items: opening, memory, filters, changes; building and speed against other engines.

    python benchmarks/bench_index.py [--items 1000000] [--engine-items 200000] [--part lifecycle|engines]

The lifecycle runs in an index on disk, and what a reader sees of it in a process of its own. Engines are compared at
equal recall: each is tuned to find 99 % of the 10 nearest items of 1,000 queries, on the same two threads. Building is
counted in processor seconds, which a busy machine changes least.
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
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import numpy as np

HERE = pathlib.Path(__file__).parent
TARGET, K, THREADS = 0.99, 10, 2
PART = 100_000
Measured = tuple[list[dict[str, object]], list[str]]  # rows of the table, and notes
NOISE = 0.73  # within classes of 10, as in bench_retrieval.py


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="of the lifecycle (default 1000000)")
    parser.add_argument("--engine-items", type=int, default=200_000, help="of the engines (default 200000)")
    parser.add_argument("--dim", type=int, default=128, help="dimensions (default 128)")
    parser.add_argument("--part", choices=["lifecycle", "engines", "all"], default="all", help="what to measure")
    parser.add_argument("--tree", action=argparse.BooleanOptionalAction, default=True, help="tune the lifecycle's tree")
    kinds = ["int8", "binary"]
    parser.add_argument("--compressed", nargs="*", choices=kinds, default=kinds, help="compressed forms to measure")
    parser.add_argument("--index", type=pathlib.Path, help="change this index in place of filling a new one")
    parser.add_argument("--reader", type=pathlib.Path, help="only what a process sees that opens this index")
    return parser.parse_args()


def vectors(items: int, dim: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield unit rows in classes of ten that fill about 20 dimensions, as trained embeddings do, some at a time."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(dim) / 10.0).astype(np.float32) + 0.02
    for start in range(0, items, PART):
        count = min(PART, items - start)
        centers = rng.standard_normal((-(-count // 10), dim), np.float32)
        rows = np.repeat(centers, 10, axis=0)[:count] + NOISE * rng.standard_normal((count, dim), np.float32)
        rows *= spread
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def anonymous_megabytes() -> float:
    """Memory of the process that is no mapped file."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def row(what: str, ours: float | None, **more: object) -> dict[str, object]:
    made = {"what": what, "ours": ours, **more}
    print(json.dumps(made), flush=True)
    return made


def lifecycle(
    items: int, dim: int, tree: bool, known: pathlib.Path | None
) -> tuple[list[dict[str, object]], list[str]]:
    from tf_detreg.index import Index

    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = known or pathlib.Path(folder) / "i"
        index = Index.load(place) if known else Index.create(place, dim, "bench")
        if known is None:
            index.index_field("label", "price")

        def fill() -> None:
            start = 0
            for part in vectors(items, dim):
                ids = range(start, start + len(part))
                index.add(part, [f"item-{id}" for id in ids], [{"label": id // 100, "price": id % 977} for id in ids])
                start += len(part)

        if known is None:
            seconds, processor = timed(fill)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            text = f"{items:,} x {dim} made and added in {seconds:.0f} s ({processor:.0f} processor seconds)"
            notes.append(f"{text}; peak memory of the process {peak:.2f} GB")
        if tree:
            seconds, processor = timed(lambda: index.tune(K, progress=False))
            state = index._store.snapshot().tree or {}
            notes.append(
                f"tuned ({state.get('engine')}) in {processor:.0f} processor seconds, recall {state.get('recall')}"
            )
        notes.append(f"on disk {index.bytes_on_disk() / 1e6:,.0f} MB")
        command = [sys.executable, __file__, "--reader", str(place), "--dim", str(dim)]
        seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows.append(row("opening", seen["open"], target=0.5))
        notes.append(f"memory after opening {seen['megabytes']:.1f} MB beyond the imports (target 300)")
        rows.append(row("first search after opening", seen["first"], target=1.0))
        rows.append(row("later searches, one query", seen["later"]))
        rows.append(row("filter that keeps 0.01 %, one query", seen["filtered"], target=0.02))
        new = next(vectors(1000, dim, seed=9))
        ids = [f"item-{id}" for id in range(0, items, items // 1000)][:1000]
        rows.append(row("1,000 upserts", timed(lambda: index.upsert(new, ids))[0], target=1.0))
        names = ("auto" if tree else "exact", "exact")
        found = index.search(new[:100], 1, engine=names[0], progress=False).ids
        notes.append(
            f"{sum(a == [b] for a, b in zip(found, ids[:100], strict=True))} of 100 upserted items are found at once"
        )
        gone = [f"item-{id}" for id in range(5, items, 10)]
        rows.append(row("removing 10 %", timed(lambda: index.remove(gone))[0]))
        queries = next(vectors(1000, dim, seed=10))[:200]
        ours, true = (index.search(queries, K, engine=name, progress=False) for name in names)
        share = np.mean([len(set(a) & set(b)) / K for a, b in zip(ours.ids, true.ids, strict=True)])
        notes.append(
            f"after that, recall@{K} of 200 new queries {share:.4f} by {ours.engine} (stated "
            f"{ours.neighbor_recall:.4f}; target 0.99)"
        )
    return rows, notes


def reader(place: pathlib.Path, dim: int) -> None:
    """Print what a process sees that opens an index."""
    from tf_detreg.index import Index

    before = anonymous_megabytes()
    began = time.perf_counter()
    index = Index.load(place)
    opened = time.perf_counter() - began
    megabytes = anonymous_megabytes() - before
    queries = next(vectors(100, dim, seed=11))
    engine = "exact" if index._store.snapshot().tree is None else "auto"

    def search(row: np.ndarray, where: str | None = None) -> float:
        return timed(lambda: index.search(row, K, where=where, engine=engine, progress=False))[0]

    first = search(queries[0])
    later = statistics.median(search(row) for row in queries[1:12])
    label = f"label = {len(index) // 300}"
    search(queries[0], label)
    filtered = [search(row, label) for row in queries[:20]]
    seen = {"open": opened, "megabytes": megabytes, "first": first, "later": later}
    print(json.dumps({**seen, "filtered": statistics.median(filtered)}))


def engines(items: int, dim: int, kinds: list[str]) -> Measured:
    from tf_detreg.index import Index
    from tf_detreg.retrieval import exact

    gallery = np.concatenate(list(vectors(items, dim)))
    queries = gallery[:: max(1, items // 1000)][:1000] + 0.02 * next(vectors(1000, dim, seed=3))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    QUERIES[:] = [queries]
    truth_seconds, _ = timed(lambda: exact.search(queries, gallery, K, progress=False))
    true = exact.search(queries, gallery, K, progress=False)[0]
    rows, notes = [], [f"exact search: {1000 / truth_seconds:,.0f} queries/s"]
    measured: dict[str, tuple[float, float, float]] = {}

    def keep(name: str, processor: float, search: Callable[[], np.ndarray]) -> None:
        found = search()
        seconds = min(timed(search)[0] for _ in range(3)) * len(true) / len(found)
        recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, true, strict=False)]))
        measured[name] = (processor, seconds, recall)
        text = (
            f"{name}: built and tuned in {processor:.0f} processor seconds, {1000 / seconds:,.0f} queries/s at recall "
        )
        notes.append(text + f"{recall:.4f}")
        print(notes[-1], flush=True)

    def tuned(search: Callable[[int], np.ndarray], first: int) -> int:
        """The least of doubled settings that reaches the recall, then refined once."""
        setting = first
        reaches = lambda n: np.mean([len(set(a) & set(b)) / K for a, b in zip(search(n), true, strict=True)]) >= TARGET  # noqa: E731
        while not reaches(setting) and setting < 4096:
            setting *= 2
        return 3 * setting // 4 if reaches(3 * setting // 4) else setting

    def build(make: Callable[[Index], object], name: str, some: int) -> None:
        index = Index(gallery)
        processor = timed(lambda: make(index))[1]
        keep(name, processor, lambda: index.search(queries[:some], K, progress=False).positions)

    for engine in ("scann", "usearch"):
        build(lambda index, engine=engine: index.tune(K, progress=False, engine=engine), f"ours, {engine}", 1000)
    for kind in kinds:
        build(lambda index, kind=kind: index.compress(kind, progress=False), f"ours, {kind}", 200)
    for name, make in PEERS.items():
        began = time.process_time()
        search, first = make(gallery)
        setting = tuned(search, first)
        keep(f"{name} ({setting})", time.process_time() - began, lambda search=search, setting=setting: search(setting))
    hnsw = next(name for name in measured if name.startswith("faiss HNSW"))
    for ours in ("ours, scann", "ours, usearch"):
        more = {
            "peer": hnsw,
            "theirs": measured[hnsw][0],
            "ratio": measured[ours][0] / measured[hnsw][0],
            "target": 2.0,
        }
        rows.append(row(f"{ours}: building and tuning, processor seconds", measured[ours][0], **more))
    for ours in ("ours, scann", "ours, usearch"):
        for name in [name for name in measured if not name.startswith("ours")]:
            more = {"peer": name, "theirs": measured[name][1], "ratio": measured[ours][1] / measured[name][1]}
            rows.append(row(f"{ours}: 1,000 queries", measured[ours][1], **more))
    return rows, notes


def faiss_hnsw(gallery: np.ndarray) -> tuple[Callable[[int], np.ndarray], int]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    graph = faiss.IndexHNSWFlat(gallery.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 96
    graph.add(gallery)

    def search(setting: int) -> np.ndarray:
        graph.hnsw.efSearch = setting
        return graph.search(QUERIES[0], K)[1]

    return search, 16


def faiss_ivf(gallery: np.ndarray) -> tuple[Callable[[int], np.ndarray], int]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    lists = int(4 * len(gallery) ** 0.5)
    coarse = faiss.IndexFlatIP(gallery.shape[1])
    made = faiss.IndexIVFFlat(coarse, gallery.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    made.train(gallery[:: max(1, len(gallery) // (40 * lists))])
    made.add(gallery)

    def search(setting: int) -> np.ndarray:
        made.nprobe = setting
        return made.search(QUERIES[0], K)[1]

    return search, 4


def plain_usearch(gallery: np.ndarray) -> tuple[Callable[[int], np.ndarray], int]:
    from usearch.index import Index

    graph = Index(ndim=gallery.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=96)
    graph.add(np.arange(len(gallery)), gallery, threads=THREADS)

    def search(setting: int) -> np.ndarray:
        graph.expansion_search = setting
        return np.asarray(graph.search(QUERIES[0], K, threads=THREADS).keys).astype(np.int64)

    return search, 16


def plain_hnswlib(gallery: np.ndarray) -> tuple[Callable[[int], np.ndarray], int]:
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=gallery.shape[1])
    graph.init_index(max_elements=len(gallery), M=16, ef_construction=96)
    graph.set_num_threads(THREADS)
    graph.add_items(gallery)

    def search(setting: int) -> np.ndarray:
        graph.set_ef(setting)
        return graph.knn_query(QUERIES[0], K)[0].astype(np.int64)

    return search, 16


PEERS = {"faiss HNSW": faiss_hnsw, "faiss IVF": faiss_ivf, "usearch": plain_usearch, "hnswlib": plain_hnswlib}
QUERIES: list[np.ndarray] = []


def main() -> None:
    chosen = arguments()
    if chosen.reader is not None:
        reader(chosen.reader, chosen.dim)
        return
    rows, notes = [], []
    if chosen.part in ("lifecycle", "all"):
        rows, notes = lifecycle(chosen.items, chosen.dim, chosen.tree, chosen.index)
    if chosen.part in ("engines", "all"):
        more, said = engines(chosen.engine_items, chosen.dim, chosen.compressed)
        rows, notes = (
            [*rows, *more],
            [*notes, f"Engines on {chosen.engine_items:,} x {chosen.dim}, {THREADS} threads:", *said],
        )
    result = {
        "title": f"An index of {chosen.items:,} x {chosen.dim}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("scann", "usearch", "faiss-cpu", "hnswlib", "numpy")},
        "notes": "\n".join(f"- {note}." for note in notes),
        "rows": rows,
    }
    out = HERE / "results" / f"index{'' if chosen.part == 'all' else '-' + chosen.part}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()

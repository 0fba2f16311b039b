"""A living index: opening, memory, filters, changes at a million items; engines; ten million items; shards.

    python benchmarks/bench_index.py --part lifecycle|engines|large|shards [--items N]

The vectors are synthetic and seeded: classes of ten that fill about 20 of 128 dimensions, as those of a trained model
do. The lifecycle runs in an index on disk, and what a reader sees of it in a process of its own. Engines are compared
at equal recall: each is tuned to find 99 % of the 10 nearest items of the queries, on the same two threads. Building
is counted in processor seconds, which a busy machine changes least; queries a second are the best of three turns, by
the clock and, times the two threads, by the processor seconds that a query takes.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads of faiss are not to count as work
TARGET, K, THREADS = 0.99, 10, 2
PART = 100_000
ENGINES = ["scann", "usearch"]
OURS = [*ENGINES, "product", "int8", "binary"]
Peer = tuple[Callable[[np.ndarray, int], np.ndarray], int, str]  # search, first setting, words for the settings
Measured = tuple[list[dict[str, object]], list[str]]  # rows of the table, and notes
NOISE = 0.73  # within classes of 10, as in bench_retrieval.py


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True, help="what to measure")
    parser.add_argument("--items", type=int, help="how many (default: 1000000, 100000, 10000000 and 200000)")
    parser.add_argument("--dim", type=int, default=128, help="dimensions (default 128)")
    parser.add_argument(
        "--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="other libraries to measure"
    )
    parser.add_argument("--ours", nargs="*", choices=OURS, default=OURS, help="of --part engines: ours to measure")
    parser.add_argument("--phases", type=int, help="stop after so many, the quick ones (default: all)")
    parser.add_argument("--folder", type=pathlib.Path, help="keep the index here, or go on with the one that is here")
    parser.add_argument("--reader", type=pathlib.Path, help="only what a process sees that opens this index")
    parser.add_argument("--server", type=pathlib.Path, help="only what a process takes that searches this large index")
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


def filled(place: pathlib.Path, items: int, dim: int, part: int = PART, metadata: bool = True) -> tuple[Any, str]:
    """Make an index on disk, part by part, and say what that took."""
    from tf_detreg.index import Index

    index = Index.create(place, dim, "bench")
    if metadata:
        index.index_field("label", "price")
    source = vectors(items, dim)

    def fill() -> None:
        for start in range(0, items, part):
            count = min(part, items - start)
            some = np.concatenate([next(source) for _ in range(-(-count // PART))])
            ids = range(start, start + count)
            if metadata:
                facts = [{"label": id // 100, "price": id % 977} for id in ids]
                index.add(some, [f"item-{id}" for id in ids], facts)
            else:
                index.add(some, ids)

    seconds, processor = timed(fill)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    text = f"made and added in parts of {part:,} in {processor:.0f} processor seconds ({seconds:.0f} s by the clock)"
    return index, f"{items:,} x {dim} {text}; peak memory {peak:.1f} GB; on disk {index.bytes_on_disk() / 1e6:,.0f} MB"


def lifecycle(items: int, dim: int, folder: pathlib.Path, chosen: argparse.Namespace) -> Iterator[Measured]:
    """Phases, the quick ones first: a run that is stopped has told what it measured until then."""

    place, known = folder / "i", folder / "filled.txt"
    if not known.exists():
        shutil.rmtree(place, ignore_errors=True)
        index, said = filled(place, items, dim)
        index.close()
        known.write_text(said, encoding="utf-8")
    notes = [known.read_text(encoding="utf-8")]
    seen = asked(place, dim)
    rows = [told("opening", seen["open"], target=0.5)]
    notes.append(f"memory after opening {seen['megabytes']:.1f} MB beyond the imports (target 300)")
    rows.append(told("first search after opening, exact", seen["first"], target=1.0))
    rows.append(told("later searches, one query, exact", seen["later"]))
    rows.append(told("filter that keeps 0.01 %, one query", seen["filtered"], target=0.02))
    with copied(place, folder / "changed") as changed:
        new = next(vectors(1000, dim, seed=9))
        ids = [f"item-{id}" for id in range(0, items, items // 1000)][:1000]
        rows.append(told("1,000 upserts", timed(lambda: changed.upsert(new, ids)), target=1.0))
        found = changed.search(new[:20], 1, engine="exact", progress=False).ids
        share = sum(a == [b] for a, b in zip(found, ids[:20], strict=True))
        notes.append(f"{share} of 20 upserted items are found at once")
        gone = [f"item-{id}" for id in range(5, items, 10)]
        rows.append(told("removing 10 % by their ids", timed(lambda: changed.remove(gone))))
    yield rows, notes

    with copied(place, folder / "tuned") as index:
        gallery = np.asarray(index.embeddings)
        compared = Comparison(gallery, 500)
        processor = timed(lambda: index.tune(K, progress=False, engine="scann"))[1]
        compared.keep("ours, scann", processor, lambda asked: index.search(asked, K, progress=False).positions)
        seen = asked(folder / "tuned", dim)
        rows.append(told("first search by the tree, which is read and compared with its checksums", seen["first"]))
        rows.append(told("later searches, one query, by the tree", seen["later"]))
        index.remove(gone)
        ours, true = (index.search(compared.queries, K, engine=name, progress=False) for name in ("auto", "exact"))
        notes.append(
            f"recall@{K} of {len(compared.queries)} queries after removing 10 %: {shared(ours.ids, true.ids):.4f} by "
            f"{ours.engine}, stated to be {ours.neighbor_recall:.4f}, measured again (target 0.99)"
        )
        yield rows, [*notes, *compared.notes]
    compared.engine("usearch")
    for peer in chosen.peers:
        compared.peer(peer)
        yield [*rows, *compared.rows()], [*notes, *compared.notes]


@contextlib.contextmanager
def copied(place: pathlib.Path, to: pathlib.Path) -> Iterator[Any]:
    """Open a copy of an index, which an earlier run may have left there."""
    from tf_detreg.index import Index

    shutil.rmtree(to, ignore_errors=True)
    with Index.load(shutil.copytree(place, to)) as index:
        yield index


def told(what: str, seconds: Sequence[float], **more: object) -> dict[str, object]:
    """A row of a clock's and the processor's seconds: on a busy machine the first are several times the second."""
    clock, processor = seconds
    amount = f"{processor:.2f} s" if processor >= 1 else f"{1000 * processor:.2f} ms"
    return row(f"{what} (processor: {amount})", clock, **more)


def asked(place: pathlib.Path, dim: int) -> dict[str, Any]:
    """What a process sees that opens the index."""
    command = [sys.executable, __file__, "--part", "lifecycle", "--reader", str(place), "--dim", str(dim)]
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seen: dict[str, Any] = json.loads(done.splitlines()[-1])
    return seen


def reader(place: pathlib.Path, dim: int) -> None:
    """Print what a process sees that opens an index."""
    from tf_detreg.index import Index
    from tf_detreg.retrieval import exact

    exact.search(np.eye(2, 3, dtype=np.float32), np.eye(4, 3, dtype=np.float32), 1, progress=False)  # loads libraries
    before, opened = anonymous_megabytes(), []
    taken = timed(lambda: opened.append(Index.load(place)))
    (index,), megabytes = opened, anonymous_megabytes() - before
    queries = next(vectors(100, dim, seed=11))
    engine = "exact" if index._store.snapshot().tree is None else "auto"

    def search(row: np.ndarray, where: str | None = None) -> tuple[float, float]:
        return timed(lambda: index.search(row, K, where=where, engine=engine, progress=False))

    def median(times: Sequence[tuple[float, float]]) -> list[float]:
        return [statistics.median(part) for part in zip(*times, strict=True)]

    label = f"label = {len(index) // 300}"
    first = search(queries[0])
    later = median([search(row) for row in queries[1:12]])
    search(queries[0], label)
    filtered = median([search(row, label) for row in queries[:20]])
    print(json.dumps({"open": taken, "megabytes": megabytes, "first": first, "later": later, "filtered": filtered}))


def shared(found: Sequence[Sequence[object]], true: Sequence[Sequence[object]]) -> float:
    """Share of the true neighbors that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


class Comparison:
    """Engines on one gallery, each tuned to the same recall on the same queries."""

    def __init__(self, gallery: np.ndarray, count: int) -> None:
        from tf_detreg.retrieval import exact

        self.gallery = gallery
        step = max(1, len(gallery) // count)
        queries = gallery[::step][:count] + 0.02 * next(vectors(count, gallery.shape[1], seed=3))
        self.queries = np.ascontiguousarray(queries / np.linalg.norm(queries, axis=1, keepdims=True))
        self.true: list[Any] = []
        seconds = timed(lambda: self.true.extend(exact.search(self.queries, gallery, K, progress=False)[0]))[0]
        self.exact = count / seconds
        self.measured: dict[str, tuple[float, float, float, float]] = {}
        self.said: list[str] = []

    def keep(self, name: str, processor: float, search: Callable[[np.ndarray], np.ndarray], more: str = "") -> None:
        found = search(self.queries)
        clock, each = (
            min(times) for times in zip(*(timed(lambda: search(self.queries)) for _ in range(3)), strict=True)
        )
        count = len(self.queries)
        self.measured[name] = processor, count / clock, THREADS * count / each, shared(found, self.true)
        self.said.append(more)
        print(name, more, *self.measured[name], flush=True)

    def engine(self, name: str) -> None:
        """Measure an engine of an index in memory."""
        from tf_detreg.index import Index

        index = Index(self.gallery)
        processor = timed(lambda: index.tune(K, progress=False, engine=name))[1]
        self.keep(f"ours, {name}", processor, lambda asked: index.search(asked, K, progress=False).positions)

    def compressed(self, kind: str) -> None:
        """Measure the compressed vectors of an index in memory."""
        from tf_detreg.index import Index

        index, done = Index(self.gallery), []
        processor = timed(lambda: done.append(index.compress(kind, progress=False)))[1]
        said = f"{done[0].bytes_an_item:.0f} bytes an item in memory, {done[0].rescored} candidates scored from disk"
        self.keep(f"ours, {kind}", processor, lambda asked: index.search(asked, K, progress=False).positions, said)

    def peer(self, name: str) -> None:
        began = time.process_time()
        search, first, more = PEERS[name](self.gallery)
        reaches = lambda setting: shared(search(self.queries, setting), self.true) >= TARGET  # noqa: E731
        setting = first
        while not reaches(setting) and setting < 4096:
            setting *= 2
        setting = 3 * setting // 4 if reaches(3 * setting // 4) else setting
        processor = time.process_time() - began
        self.keep(name, processor, lambda asked: search(asked, setting), f"{more}{setting}")

    def rows(self) -> list[dict[str, object]]:
        if "faiss HNSW" not in self.measured:
            return []
        hnsw = self.measured["faiss HNSW"][0]
        return [
            row(
                f"{name}: building and tuning, processor seconds",
                taken[0],
                peer="faiss HNSW",
                theirs=hnsw,
                ratio=taken[0] / hnsw,
                target=2.0,
            )
            for name, taken in self.measured.items()
            if name in ("ours, scann", "ours, usearch")
        ]

    @property
    def notes(self) -> list[str]:
        hnsw = self.measured.get("faiss HNSW", (np.nan, np.nan, np.nan))
        head = f"exact search of {len(self.gallery):,} items: {self.exact:,.0f} queries/s. At equal recall:\n"
        lines = [
            head,
            "| engine | settings | built and tuned, processor s | of HNSW's | queries/s by the clock | of HNSW's "
            "| by the processor | of HNSW's | recall@10 |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for (name, (*numbers, recall)), more in zip(self.measured.items(), self.said, strict=True):
            cells = (f"{number:,.0f} | {number / one:.2f}" for number, one in zip(numbers, hnsw, strict=False))
            lines.append(f"| {name} | {more or '–'} | {' | '.join(cells)} | {recall:.4f} |")
        return ["\n".join(lines) + "\n"]


def engines(items: int, dim: int, folder: pathlib.Path, chosen: argparse.Namespace) -> Iterator[Measured]:
    gallery = np.concatenate(list(vectors(items, dim)))
    compared = Comparison(gallery, 1000)
    for name in chosen.ours:
        compared.engine(name) if name in ENGINES else compared.compressed(name)
    for peer in chosen.peers:
        compared.peer(peer)
    yield compared.rows(), compared.notes


def large(items: int, dim: int, folder: pathlib.Path, chosen: argparse.Namespace) -> Iterator[Measured]:
    """Ten million items, built by parts, compressed by product quantization, and what serving them takes."""
    place = folder / "large"
    with Peak() as filling:
        index, said = filled(place, items, dim, 2_000_000, metadata=False)
    notes = [f"{said}, without metadata"]
    with Peak() as building:
        done = []
        seconds, processor = timed(lambda: done.append(index.compress("product", k=K, progress=False)))
    index.close()
    peak = max(filling.anonymous, building.anonymous)
    notes.append(
        f"compressed by product quantization in {processor:.0f} processor seconds ({seconds:.0f} s by the clock): "
        f"{done[0].bytes_an_item:.0f} bytes an item, recall {done[0].recall:.4f}"
    )
    resident = max(filling.resident, building.resident)
    notes.append(f"peak memory {peak:.1f} GB, {resident:.1f} GB with the mapped pages of the vectors (target 12)")
    command = [sys.executable, __file__, "--part", "large", "--server", str(place), "--dim", str(dim)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    rows = [row("opening", seen["open"], target=1.0), row("first search after opening", seen["first"])]
    rows.append(row("one query", seen["one"]))
    served = f"{seen['anonymous']:.2f} GB, {seen['resident']:.1f} GB with mapped pages, which the system takes back"
    notes.append(f"memory to serve: {served} (target 4)")
    notes.append(f"recall@{K} of {seen['queries']} other queries {seen['recall']:.4f} (target 0.99)")
    ratio = seen["exact"] / seen["tree"]
    rows.append(row(f"{seen['queries']} queries", seen["tree"], peer="exact", theirs=seen["exact"], ratio=1 / ratio))
    notes.append(f"throughput {ratio:.0f} times that of exact search, {seen['queries'] / seen['tree']:,.0f} queries/s")
    yield rows, notes


def server(place: pathlib.Path, dim: int, count: int = 500) -> None:
    """Print what a process takes that opens a large index and searches it."""
    from tf_detreg.index import Index

    with Peak() as peak:
        index: list[Any] = []
        opened = timed(lambda: index.append(Index.load(place)))[0]
        queries = next(vectors(count, dim, seed=3))
        rows = np.linspace(0, len(index[0]) - 1, count).astype(int)
        queries = 0.02 * queries + index[0].embeddings[rows]
        search = lambda asked, engine="auto": index[0].search(asked, K, engine=engine, progress=False)  # noqa: E731
        first = timed(lambda: search(queries[0]))[0]
        one = statistics.median(timed(lambda at=at: search(queries[at]))[0] for at in range(1, 22))
        found = search(queries)
        tree = min(timed(lambda: search(queries))[0] for _ in range(3))
    true: list[Any] = []
    exact = timed(lambda: true.append(search(queries, "exact")))[0]
    seen = {"open": opened, "first": first, "one": one, "tree": tree, "exact": exact, "queries": count}
    seen |= {"anonymous": peak.anonymous, "resident": peak.resident, "recall": shared(found.ids, true[0].ids)}
    print(json.dumps(seen))


class Peak:
    """The most memory that the process has inside the block, in GB: looked at every tenth of a second."""

    def __enter__(self) -> "Peak":
        self.anonymous = self.resident = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._end.wait(0.1):
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            size = {
                line.split(":")[0]: int(line.split()[1]) / 1e6 for line in lines if line.startswith(("RssA", "VmRSS"))
            }
            self.anonymous = max(self.anonymous, size["RssAnon"])
            self.resident = max(self.resident, size["VmRSS"])

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def shards(items: int, dim: int, folder: pathlib.Path, chosen: argparse.Namespace) -> Iterator[Measured]:
    """Four shards on this machine against one index of the same items, in turns."""
    from tf_detreg.index import Index, Shards

    gallery, count = np.concatenate(list(vectors(items, dim))), 4
    compared = Comparison(gallery, 1000)
    one = Index(gallery)
    parts = [Index(gallery[shard::count], range(shard, items, count)) for shard in range(count)]
    rows, notes = [], []
    for engine in ("exact", "scann"):
        if engine != "exact":
            for name, built in (("one index", [one]), (f"{count} shards", parts)):
                made = lambda built=built: [part.tune(K, progress=False, engine="scann") for part in built]  # noqa: E731
                notes.append(f"{name}: built and tuned in {timed(made)[1]:.0f} processor seconds")
        with contextlib.ExitStack() as open_ones:
            fan = Shards(parts)
            open_ones.callback(fan._pool.shutdown)
            ask = {
                "ours": lambda fan=fan, engine=engine: fan.search(compared.queries, K, engine=engine, progress=False),
                "theirs": lambda engine=engine: one.search(compared.queries, K, engine=engine, progress=False),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ask}
            for _ in range(5):
                for name, search in ask.items():
                    seconds[name].append(timed(search)[0])
            ours, theirs = (statistics.median(seconds[name]) for name in ask)
            ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
            rows.append(row(f"{count} shards, {engine}: 1,000 queries", ours, peer="one index", theirs=theirs,
                            ratio=ours / theirs, spread=[min(ratios), max(ratios)]))  # fmt: skip
            for name, search in ask.items():
                said = {"ours": f"{count} shards", "theirs": "one index"}[name]
                found = search()
                recall = shared(found.ids, compared.true)
                notes.append(f"{said}, {found.engine}: recall@{K} {recall:.4f}, stated {found.neighbor_recall:.4f}")
        yield rows, notes


def faiss_hnsw(gallery: np.ndarray) -> Peer:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    graph = faiss.IndexHNSWFlat(gallery.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 40
    graph.add(gallery)

    def search(asked: np.ndarray, setting: int) -> np.ndarray:
        graph.hnsw.efSearch = setting
        return graph.search(asked, K)[1]

    return search, 16, "M 16, efConstruction 40, efSearch "


def faiss_ivf(gallery: np.ndarray) -> Peer:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    lists = int(4 * len(gallery) ** 0.5)
    coarse = faiss.IndexFlatIP(gallery.shape[1])
    made = faiss.IndexIVFFlat(coarse, gallery.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    made.cp.niter = 10
    made.train(gallery[:: max(1, len(gallery) // (30 * lists))])
    made.add(gallery)

    def search(asked: np.ndarray, setting: int) -> np.ndarray:
        made.nprobe = setting
        return made.search(asked, K)[1]

    return search, 4, f"{lists:,} lists, nprobe "


def plain_usearch(gallery: np.ndarray) -> Peer:
    from usearch.index import Index

    graph = Index(ndim=gallery.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=40)
    graph.add(np.arange(len(gallery)), gallery, threads=THREADS)

    def search(asked: np.ndarray, setting: int) -> np.ndarray:
        graph.expansion_search = setting
        return np.asarray(graph.search(asked, K, threads=THREADS).keys).astype(np.int64)

    return search, 16, "connectivity 16, expansion_add 40, expansion_search "


def plain_hnswlib(gallery: np.ndarray) -> Peer:
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=gallery.shape[1])
    graph.init_index(max_elements=len(gallery), M=16, ef_construction=40)
    graph.set_num_threads(THREADS)
    graph.add_items(gallery)

    def search(asked: np.ndarray, setting: int) -> np.ndarray:
        graph.set_ef(setting)
        return graph.knn_query(asked, K)[0].astype(np.int64)

    return search, 16, "M 16, ef_construction 40, ef "


PEERS = {"faiss HNSW": faiss_hnsw, "faiss IVF": faiss_ivf, "usearch": plain_usearch, "hnswlib": plain_hnswlib}
PARTS = {
    "lifecycle": (lifecycle, 1_000_000, "An index of {items:,} × {dim}: its life, and engines"),
    "engines": (engines, 100_000, "An index of {items:,} × {dim}: engines"),
    "large": (large, 10_000_000, "An index of {items:,} × {dim}, built by parts"),
    "shards": (shards, 200_000, "An index of {items:,} × {dim}: four shards"),
}


def main() -> None:
    chosen = arguments()
    if chosen.reader is not None or chosen.server is not None:
        reader(chosen.reader, chosen.dim) if chosen.reader else server(chosen.server, chosen.dim)
        return
    measure, usual, title = PARTS[chosen.part]
    items = chosen.items or usual
    with contextlib.ExitStack() as stack:
        folder = chosen.folder or stack.enter_context(tempfile.TemporaryDirectory())
        for rows, notes in itertools.islice(measure(items, chosen.dim, pathlib.Path(folder), chosen), chosen.phases):
            write(f"{chosen.part}-{items}", title.format(items=items, dim=chosen.dim), rows, notes)


def commit() -> str:
    """Return which state of the code was measured."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def write(name: str, title: str, rows: list[dict[str, object]], notes: list[str]) -> None:
    result = {
        "title": title,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, mean load of a quarter of an hour "
        f"{os.getloadavg()[2]:.0f}",
        "versions": {"tf-detreg": f"{version('tf-detreg')} ({commit()})"}
        | {name: version(name) for name in ("scann", "usearch", "faiss-cpu", "hnswlib", "numpy")},
        "notes": f"`python benchmarks/bench_index.py {shlex.join(sys.argv[1:])}`.\n\n"
        + "\n".join(f"- {note}{'' if note.endswith(chr(10)) else '.'}" for note in notes),
        "rows": rows,
    }
    out = HERE / "results" / f"index-{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(f"Wrote {out}", flush=True)


if __name__ == "__main__":
    main()

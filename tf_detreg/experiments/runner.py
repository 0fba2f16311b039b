"""Run a study: choose on validation classes, test once, in a pool of processes, skipping what is done."""

import concurrent.futures
import contextlib
import datetime
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tf_detreg import files
from tf_detreg.experiments.study import Study, digest, recipe_of, signature
from tf_detreg.progress import ticker
from tf_detreg.training import RunConfig

FORMAT = 2
ONE_THREAD = "1 thread"
# TensorFlow keeps some of every model that was ever built, a hundred megabytes of a pretrained one, so a worker is
# replaced before it holds many.
TRIALS_A_WORKER = 20
_PARTS = ("validation", "test", "max_classes", "train_share", "images_per_class", "smoothness", "directories")
# Entries that a protocol has had only since trials were written without them: no part of a key at their defaults.
_ADDED = {"train_classes": 0, "retrain": True}


def jobs_of(study: Study, stage: str) -> list[dict[str, Any]]:
    """Return the trials of a stage (`"validation"` or `"test"`), each a JSON-able description with its key."""
    protocol = study.protocol
    seeds = protocol["choice_seeds"] if study.kind == "choice" and stage == "validation" else protocol["seeds"]
    return [
        describe(study, stage, recipe, split, seed)
        for recipes in study.families.values()
        for recipe in recipes
        for split in protocol["splits"]
        for seed in seeds
    ]


def describe(study: Study, stage: str, config: dict[str, Any], split: int, seed: int) -> dict[str, Any]:
    """Return one trial; its key names everything that its numbers depend on, and nothing else."""
    protocol = {name: study.protocol[name] for name in (*_PARTS, *_ADDED)}
    job = {"stage": stage, "split": split, "seed": seed, "config": config, "protocol": protocol}
    counted = {name: value for name, value in protocol.items() if name not in _ADDED or value != _ADDED[name]}
    identity = {
        **job,
        "protocol": counted,
        "config": recipe_of(config),
        "data": _by_name_and_size(config["data"]),
        "format": FORMAT,
    }
    return {**job, "recipe_hash": digest(recipe_of(config)), "key": digest(identity)}


def run(
    study: Study,
    folder: os.PathLike[str],
    jobs: int = 1,
    progress: bool | None = None,
    *,
    log: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Run what is missing of a study and return its rows.

    A finished trial is one JSON file in `folder/runs`, written in one move, so a killed study loses only the trials
    under way, and studies that share a trial share its file.

    Args:
        study: From `experiments.study.read`.
        folder: Of `runs/`.
        jobs: Processes, each on one thread. Default 1. 0 runs the trials in this process, on all its devices.
        progress: Whether to show progress, and a line on each finished trial. Default None: in a terminal and in a log.
        log: Takes the lines in place of that, for the former argument of `ablate`. Default: none.

    Returns:
        One record a trial, with its `family`. For a choice: the validation trials of all candidates, and the test
        trials of the chosen.

    Raises:
        ValueError: If a trial fails; what is done so far stays.
    """
    folder = pathlib.Path(folder) / "runs"
    stage = "test" if study.kind == "table" else "validation"
    rows = _with_family(study, complete(jobs_of(study, stage), folder, jobs, progress, log))
    if study.kind != "choice":
        return rows
    tests = [job for split in study.protocol["splits"] for job in _test_jobs(study, rows, split)]
    return rows + _with_family(study, complete(tests, folder, jobs, progress, log))


def choose(study: Study, rows: Iterable[dict[str, Any]], family: str, split: int) -> dict[str, Any]:
    """Return the candidate of a family with the best mean metric on this split's validation classes."""
    rows = [r for r in rows if r["stage"] == "validation" and r["family"] == family and r["split"] == split]
    score: dict[str, list[float]] = {}
    for row in rows:
        score.setdefault(row["recipe_hash"], []).append(row["metrics"][study.protocol["metric"]])
    best = max(score, key=lambda name: statistics.fmean(score[name]))
    return next(row["config"] for row in rows if row["recipe_hash"] == best)


def _test_jobs(study: Study, rows: list[dict[str, Any]], split: int) -> list[dict[str, Any]]:
    chosen = [choose(study, rows, family, split) for family in study.families]
    return [describe(study, "test", config, split, seed) for config in chosen for seed in study.protocol["seeds"]]


def _with_family(study: Study, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records once for each family that holds their recipe."""
    member = {family: {signature(recipe) for recipe in recipes} for family, recipes in study.families.items()}
    return [
        {**record, "family": family, "study": study.name}
        for family, known in member.items()
        for record in records
        if signature(record["config"]) in known
    ]


def complete(
    wanted: list[dict[str, Any]],
    folder: pathlib.Path,
    jobs: int,
    progress: bool | None = None,
    log: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Return the records of these trials, running those that have no file yet; arguments as for `run`."""
    wanted = list({job["key"]: job for job in wanted}.values())
    missing = [job for job in wanted if not (folder / f"{job['key']}.json").is_file()]
    with reporting("Trials", len(wanted), len(wanted) - len(missing), progress, log) as report:
        if missing:
            _prepare_data(missing[0])
            for line in _lines(missing, folder, jobs):
                report(line)
    return [json.loads((folder / f"{job['key']}.json").read_text(encoding="utf-8")) for job in wanted]


@contextlib.contextmanager
def reporting(
    title: str, total: int, done: int, progress: bool | None, log: Callable[[str], None] | None
) -> Iterator[Callable[[str], None]]:
    """Yield a function that counts a trial and shows a line on it: as progress, or to the former argument `log`."""
    if log is None:
        with ticker(title, total, progress, done) as tick:
            yield lambda line: tick(1, line)
        return
    log(f"{total} {title.lower()}, {done} of them done before")
    number = itertools.count(1)
    yield lambda line: log(f"[{next(number)}/{total - done}] {line}")


def _prepare_data(job: dict[str, Any]) -> None:
    """Load the data once before any worker does, so that one process alone fills the caches."""
    from tf_detreg.experiments import data

    data.load(RunConfig.from_dict(job["config"]), job["protocol"]["test"] == data.OFFICIAL)


def _lines(missing: list[dict[str, Any]], folder: pathlib.Path, jobs: int) -> Iterator[str]:
    """Run trials, here or in a pool, and yield a line for each as it ends."""
    if jobs == 0:
        yield from (_trial(job, str(folder)) for job in missing)
        return
    yield from in_pool(functools.partial(_trial, folder=str(folder)), missing, jobs, TRIALS_A_WORKER, _one_thread)


def in_pool(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    jobs: int,
    per_worker: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Call a function on each item in processes that are replaced after some calls, and yield results as they come.

    No more items are handed over than there are processes: Python 3.11 to 3.13 do not replace a process that has ended
    while the pool counts waiting items as idle processes, and then wait forever.

    Args:
        function: Of one item; both must be picklable.
        items: What it is called on.
        jobs: Processes.
        per_worker: Calls after which a process is replaced.
        initializer: Called first in each process. Default: nothing is.

    Raises:
        Exception: What the function raises; items that are not begun are dropped.
    """
    waiting = iter(items)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        jobs, mp_context=spawn, initializer=initializer, max_tasks_per_child=per_worker
    ) as pool:
        running = {pool.submit(function, item) for item in itertools.islice(waiting, jobs)}
        while running:
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield future.result()
                running |= {pool.submit(function, item) for item in itertools.islice(waiting, 1)}


def _one_thread() -> None:
    """Compute on one thread in each worker: trials repeat to the bit, and `jobs` says how many cores are used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _trial(job: dict[str, Any], folder: str) -> str:
    """Run one trial in a worker, write its file, and say how it went."""
    from tf_detreg.experiments import trial

    config = RunConfig.from_dict(job["config"]).replace(seed=job["seed"])
    if _devices() == ONE_THREAD:
        # Which repeats to the bit by itself, and is faster without the slower kernels that promise it.
        config = config.replace(deterministic=False)
    kept = pathlib.Path(folder) / job["key"] if job["protocol"]["directories"] else None
    metrics = trial.run(config, job["protocol"], job["split"], job["stage"], kept)
    record = {
        **job,
        "metrics": metrics,
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_devices()}",
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    files.write_json(pathlib.Path(folder) / f"{job['key']}.json", record)
    return (
        f"{job['stage']} split {job['split']} seed {job['seed']} {config.head['name']} "
        f"{job['recipe_hash']}: R@1 {metrics['recall@1']:.2f}, {metrics['seconds']:.0f} s"
    )


def _devices() -> str:
    import tensorflow as tf

    cards = len(tf.config.list_physical_devices("GPU"))
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return f"{cards} GPUs" if cards else ONE_THREAD if threads == 1 else "all threads"


def _by_name_and_size(data: dict[str, Any]) -> dict[str, Any]:
    """Return a data table in which a file counts by name and size and a folder by name, not by where they are."""
    path = data.get("path")
    if not isinstance(path, str):
        return data
    place = pathlib.Path(path)
    return {**data, "path": [place.name, place.stat().st_size] if place.is_file() else place.name}


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tf-detreg", "tensorflow", "keras", "numpy")}

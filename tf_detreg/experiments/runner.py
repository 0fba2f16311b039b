"""Run a study: choose on validation classes, test once, in a pool of processes, skipping what is done."""

import concurrent.futures
import datetime
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator

from tf_detreg import files
from tf_detreg.experiments import data as data_module
from tf_detreg.experiments.study import Study, recipe_hash

FORMAT = 1
# TensorFlow keeps some of every model that was ever built, a hundred megabytes of a pretrained one, so a worker is
# replaced before it holds many.
TRIALS_A_WORKER = 20


def jobs_of(study: Study, stage: str, families: dict[str, tuple[dict, ...]]) -> list[dict]:
    """The trials of a stage (`"validation"` or `"test"`), each a JSON-able description with its key."""
    protocol = study.protocol
    seeds = protocol["choice_seeds"] if study.kind == "choice" and stage == "validation" else protocol["seeds"]
    return [
        describe(study, stage, recipe, split, seed)
        for recipes in families.values()
        for recipe in recipes
        for split in protocol["splits"]
        for seed in seeds
    ]


def describe(study: Study, stage: str, recipe: dict, split: int, seed: int) -> dict:
    """One trial; its key names everything that its numbers depend on, and nothing else."""
    parts = ["validation", "test", "train_share", "recall_at", "smoothness"]
    # A part that came later counts only where a study sets it, so that finished trials keep their keys.
    parts += ["health"] * bool(study.protocol["health"])
    job = {
        "data": dict(study.data),
        "stage": stage,
        "split": split,
        "seed": seed,
        "recipe": recipe,
        "protocol": {name: study.protocol[name] for name in parts},
    }
    identity = {**job, "data": data_module.fingerprint(study.data), "format": FORMAT}
    return {**job, "recipe_hash": recipe_hash(recipe), "key": recipe_hash(identity)}


def run(study: Study, folder: os.PathLike, jobs: int = 1, log: Callable[[str], None] = print) -> list[dict]:
    """Run what is missing of a study and return its rows.

    A finished trial is one JSON file in `folder/runs`, written in one move, so a killed study loses only the trials
    under way, and studies that share a trial share its file.

    Args:
        study: from `experiments.study.read`.
        folder: where `runs/` lies.
        jobs: processes, each on one thread. Default 1. 0 runs the trials in this process, for tests and debugging.
        log: takes a line of text per finished trial.

    Returns:
        One record a trial, with its `family`. For a choice: the validation trials of all candidates, and the test
        trials of the chosen.

    Raises:
        ValueError: if a trial fails; what is done so far stays.
    """
    folder = pathlib.Path(folder) / "runs"
    validation = complete(jobs_of(study, "validation", study.families), folder, jobs, log)
    rows = _with_family(study, validation)
    if study.kind == "ablation":
        return rows
    tests = [job for split in study.protocol["splits"] for job in _test_jobs(study, rows, split)]
    return rows + _with_family(study, complete(tests, folder, jobs, log))


def choose(study: Study, rows: Iterable[dict], family: str, split: int) -> dict:
    """The recipe of a family with the best mean metric on this split's validation classes."""
    rows = [r for r in rows if r["stage"] == "validation" and r["family"] == family and r["split"] == split]
    score = {}
    for row in rows:
        score.setdefault(row["recipe_hash"], []).append(row["metrics"][study.protocol["metric"]])
    best = max(score, key=lambda name: statistics.fmean(score[name]))
    return next(row["recipe"] for row in rows if row["recipe_hash"] == best)


def _test_jobs(study: Study, rows: list[dict], split: int) -> list[dict]:
    chosen = [choose(study, rows, family, split) for family in study.families]
    return [describe(study, "test", recipe, split, seed) for recipe in chosen for seed in study.protocol["seeds"]]


def _with_family(study: Study, records: list[dict]) -> list[dict]:
    """Records once for each family that holds their recipe."""
    member = {family: {recipe_hash(recipe) for recipe in recipes} for family, recipes in study.families.items()}
    return [
        {**record, "family": family, "study": study.name}
        for family, hashes in member.items()
        for record in records
        if record["recipe_hash"] in hashes
    ]


def complete(wanted: list[dict], folder: pathlib.Path, jobs: int, log) -> list[dict]:
    """The records of these trials, running those that have no file yet."""
    wanted = list({job["key"]: job for job in wanted}.values())
    missing = [job for job in wanted if not (folder / f"{job['key']}.json").is_file()]
    log(f"{len(wanted)} trials, {len(wanted) - len(missing)} of them done before")
    if missing:
        data_module.load(missing[0]["data"])
        for number, line in enumerate(_lines(missing, folder, jobs), 1):
            log(f"[{number}/{len(missing)}] {line}")
    return [json.loads((folder / f"{job['key']}.json").read_text(encoding="utf-8")) for job in wanted]


def _lines(missing: list[dict], folder: pathlib.Path, jobs: int) -> Iterator[str]:
    """Run trials, here or in a pool, and yield a line for each as it ends."""
    if jobs == 0:
        yield from (_trial(job, str(folder)) for job in missing)
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        jobs, mp_context=spawn, initializer=_one_thread, max_tasks_per_child=TRIALS_A_WORKER
    ) as pool:
        futures = [pool.submit(_trial, job, str(folder)) for job in missing]
        try:
            yield from (future.result() for future in concurrent.futures.as_completed(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    """Each worker computes on one thread: trials repeat to the bit, and `jobs` says how many cores are used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _trial(job: dict, folder: str) -> str:
    """Run one trial in a worker, write its file, and say how it went."""
    from tf_detreg.experiments import trial

    arrays = data_module.load(job["data"])
    protocol = job["protocol"]
    train, validation, test = data_module.deal(
        arrays.num_classes, protocol["validation"], protocol["test"], job["split"], protocol["train_share"]
    )
    if job["stage"] == "test":
        train, unseen = [*validation, *train], test
    else:
        unseen = validation
    metrics = trial.run(job["recipe"], arrays.select(train), arrays.select(unseen), job["seed"], protocol)
    record = {
        **job,
        "metrics": metrics,
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, 1 thread",
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    files.write_json(pathlib.Path(folder) / f"{job['key']}.json", record)
    return (
        f"{job['stage']} split {job['split']} seed {job['seed']} {job['recipe']['head']['kind']} "
        f"{job['recipe_hash']}: R@1 {metrics['recall@1']:.2f}, {metrics['seconds']:.0f} s"
    )


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("tf-detreg", "tensorflow", "keras", "numpy")}

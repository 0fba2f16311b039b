"""Running what was written in clean processes, and comparing it with the Keras model."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from tf_detreg import archives, deprecated, extras, retrieval
from tf_detreg.export import publishing
from tf_detreg.export.inference import fingerprint, image_size_of, inference_model, pixels
from tf_detreg.files import existing, read_json
from tf_detreg.progress import ticker

if TYPE_CHECKING:
    from rich.table import Table

    from tf_detreg.datasets import ImageSet


RUNNER = pathlib.Path(__file__).with_name("runner.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The least cosine of any image's embedding to Keras' own, and the largest change of R@1 in points."""

    cosine: float
    recall_points: float


LIMITS = {
    "float32": Limits(0.99999, 0.1),
    "float16": Limits(0.99999, 0.1),
    "dynamic": Limits(0.999, 0.3),
    "int8": Limits(0.99, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Check:
    """What one artifact did in its own process."""

    name: str
    engine: str
    precision: str
    megabytes: float
    cosine_min: float
    cosine_mean: float
    recall_points: float | None
    latency_ms: dict[int, float]
    failures: tuple[str, ...]
    limits: Limits | None = None

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclasses.dataclass(frozen=True)
class Verification:
    """The checks of a set of artifacts on the same images."""

    checks: tuple[Check, ...]
    images: int
    recall_at_1: float | None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def require(self) -> "Verification":
        """Return itself.

        Raises:
            ValueError: If an artifact fell below its limits.
        """
        if not self.passed:
            raise ValueError(f"Not published, the artifacts differ too much from the Keras model. {self.reasons()}.")
        return self

    def reasons(self) -> str:
        """Return what fell below its limits, and how far; empty if nothing did."""
        return "; ".join(f"{check.name}: {', '.join(check.failures)}" for check in self.checks if check.failures)

    def limits(self) -> str:
        """Return what was allowed, by precision; empty if that is not known."""
        allowed = {check.precision: check.limits for check in self.checks if check.limits is not None}
        texts = (
            f"{precision} cosine min ≥ {limit.cosine}, R@1 ± {limit.recall_points} points"
            for precision, limit in allowed.items()
        )
        return "Limits: " + "; ".join(texts) + "." if allowed else ""

    def rows(self) -> list[dict[str, str]]:
        """Return one mapping of column to text an artifact."""
        batches = sorted({batch for check in self.checks for batch in check.latency_ms})
        found = []
        for check in self.checks:
            row = {"artifact": check.name, "run by": check.engine, "MB": f"{check.megabytes:.2f}"}
            row |= {"cosine min": f"{check.cosine_min:.6f}", "cosine mean": f"{check.cosine_mean:.6f}"}
            row["R@1 change (points)"] = "–" if check.recall_points is None else f"{check.recall_points:+.2f}"
            row |= {f"ms at batch {batch}": f"{check.latency_ms[batch]:.2f}" for batch in batches}
            row["within limits"] = "yes" if check.passed else "**no**: " + "; ".join(check.failures)
            found.append(row)
        return found

    def to_markdown(self) -> str:
        """Return a table, one artifact a row."""
        rows = self.rows()
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def to_table(self) -> "Table":
        """Return the same for a terminal of 80 columns, without what the file names say: a `rich.table.Table`."""
        with extras.needed("Printing a table"):
            from rich.box import SIMPLE
            from rich.markup import escape
            from rich.table import Table

        title = f"Against the Keras model, on {self.images} images, each artifact in its own process"
        table = Table(title=title, caption=escape(self.limits()), box=SIMPLE, padding=0)
        table.add_column("artifact", overflow="fold")
        columns = [column for column in self.rows()[0] if column not in ("artifact", "run by", "within limits")]
        for column in columns:
            heading = column.removesuffix(" (points)").replace("ms at batch", "ms at")
            # In two lines: the names of the files need the width.
            table.add_column("\n".join(heading.rsplit(" ", 1)), justify="right")
        table.add_column("within\nlimits")
        for check, row in zip(self.checks, self.rows(), strict=True):
            table.add_row(
                escape(row["artifact"]), *(row[column] for column in columns), "yes" if check.passed else "no"
            )
        return table

    def to_dict(self) -> dict[str, object]:
        """Return the same as plain numbers and strings."""
        return {**dataclasses.asdict(self), "passed": self.passed}

    def to_json(self) -> str:
        """Return JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


@deprecated.renamed_arguments(artefacts="artifacts")
def verify(
    embedder: keras.Model,
    artifacts: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    images: "ImageSet | ArrayLike",
    labels: np.ndarray | None = None,
    *,
    limits: dict[str, Limits] | None = None,
    latency: tuple[int, ...] = (1, 32),
    repeats: int = 20,
    most: int = 2000,
    timeout: float = 600.0,
    progress: bool | None = None,
) -> Verification:
    """Run artifacts in clean processes on real images and compare them with the Keras model.

    A process imports only TensorFlow for a SavedModel folder, only LiteRT for a `.tflite` file, only onnxruntime for an
    `.onnx` file; nothing of tf_detreg.

    Args:
        embedder: The model that was exported.
        artifacts: SavedModel version folders, `.tflite` and `.onnx` files.
        images: `(N, H, W, 3)`, 0..255, at the model's input size, or an `ImageSet`; best, of the test classes.
        labels: `(N,)` classes. With them (an `ImageSet` brings its own), the change of R@1 is measured, each image
            searched among the others.
        limits: By precision (`float32`, `float16`, `dynamic`, `int8`), what to allow. Default: `export.LIMITS`.
        latency: Batch sizes to time. Default 1 and 32.
        repeats: Calls that are timed at each. Default 20.
        most: Images of an `ImageSet` that are used, the first ones. Default 2000.
        timeout: Seconds that a process may take. Default 600.
        progress: Whether to show progress. Default None: a bar in a terminal, lines in a log.

    Returns:
        A `Verification`: `.passed`, `.checks`, `.to_markdown()`, `.to_json()`, and `.require()`, which raises.

    Raises:
        FileNotFoundError: If an artifact is missing.
        ValueError: If an artifact is damaged or cannot be run, or `images` do not fit.

    Example:
        >>> from tf_detreg.export import saved_model
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.UnitNormalization()])
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 4, 4, 3))
        >>> path = saved_model(model, tempfile.mkdtemp(), warm_up=False)
        >>> verify(model, path, images, latency=()).passed
        True
    """
    embedder = inference_model(embedder)
    images, labels = pixels(images, labels, image_size_of(embedder), most)
    wanted = np.concatenate([np.asarray(embedder(images[at : at + 64])) for at in range(0, len(images), 64)])
    truth = None if labels is None else recall_at_1(wanted, np.asarray(labels))
    if isinstance(artifacts, str | os.PathLike):
        artifacts = [artifacts]
    mark = fingerprint(embedder)
    checks, paths = [], [pathlib.Path(path) for path in artifacts]
    with ticker("Checking the files", len(paths), progress) as tick:
        for path in paths:
            engine_of(path)
            check_artifact(path)
            got, timings = run_artifact(path, images, latency=latency, repeats=repeats, timeout=timeout)
            recall = None if truth is None else recall_at_1(got, np.asarray(labels))
            change = None if recall is None or truth is None else 100 * (recall - truth)
            checks.append(_compare(path, wanted, got, change, timings, {**LIMITS, **(limits or {})}, mark))
            tick(1)
    return Verification(tuple(checks), len(images), truth)


def run_artifact(
    path: pathlib.Path,
    inputs: np.ndarray,
    *,
    engine: str | None = None,
    signature: str = "serving_default",
    output: str = "embeddings",
    latency: tuple[int, ...] = (),
    repeats: int = 20,
    timeout: float = 600.0,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return embeddings and timings of an artifact that a clean process ran.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the process fails; the message ends with what it said.
    """
    outputs, answer = run_job(
        path, inputs, engine=engine, signature=signature, outputs=(output,), latency=latency, repeats=repeats,
        timeout=timeout,
    )  # fmt: skip
    return outputs[output], answer


def run_job(
    path: pathlib.Path,
    inputs: np.ndarray,
    *,
    engine: str | None = None,
    signature: str,
    outputs: Sequence[str],
    latency: Sequence[int] = (),
    repeats: int = 20,
    timeout: float = 600.0,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return all the named outputs of an artifact, and the process's answer. See `run_artifact`."""
    path = pathlib.Path(path)
    engine = engine or engine_of(path)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.save(folder / "inputs.npy", inputs)
        files = {name: str(folder / f"{name}.out.npy") for name in outputs}
        job: dict[str, Any] = {
            "engine": engine,
            "path": str(path),
            "signature": signature,
            "inputs": str(folder / "inputs.npy"),
        }
        job |= {"outputs": files, "batch": 64, "latency": list(latency), "repeats": repeats}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-P", str(RUNNER), str(folder / "job.json")]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=quiet, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path} did not end within timeout={timeout:g} seconds under {engine}.") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"{path} could not be run by {engine} (exit {done.returncode}): {last}")
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        return {name: np.load(file) for name, file in files.items()}, answer


def engine_of(path: pathlib.Path) -> str:
    """Return the runtime for an artifact, by what it is.

    Raises:
        ValueError: If it is neither a SavedModel folder nor a `.tflite` or `.onnx` file.
    """
    existing(path, "artifacts", "Give what `export` wrote: a version's folder, or .tflite and .onnx files.")
    if (path / "saved_model.pb").is_file():
        return "tensorflow"
    engine = {".tflite": "litert", ".onnx": "onnxruntime"}.get(path.suffix)
    if engine is None or not path.is_file():
        raise ValueError(
            f"`artifacts` must be SavedModel version folders (with saved_model.pb), .tflite or .onnx files; received "
            f"{str(path)!r}."
        )
    return engine


def facts_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the `metadata.json` of an artifact; empty where it has none.

    Raises:
        ValueError: If it is damaged.
    """
    path = pathlib.Path(path)
    file = path / "assets.extra" / "metadata.json"
    if file.is_file():
        return read_json(file)
    if path.suffix == ".tflite" and zipfile.is_zipfile(path):
        fault = archives.fault(path)
        if fault is not None:
            raise _damaged(path, fault)
        with zipfile.ZipFile(path) as archive:
            # A file that others wrote may hold labels alone.
            return json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
    return {}


def check_artifact(path: str | os.PathLike[str]) -> None:
    """Compare an artifact with the checksums that were written with it, as far as there are any.

    Args:
        path: A SavedModel version folder or a `.tflite` file.

    Raises:
        ValueError: If it is damaged.
    """
    path = pathlib.Path(path)
    publishing.check_version(path)
    if path.suffix != ".tflite":
        return
    facts = facts_of(path)
    if "model_sha256" in facts:
        content = path.read_bytes()[: facts["model_bytes"]]
        if hashlib.sha256(content).hexdigest() != facts["model_sha256"]:
            raise _damaged(path, "the model does not match its checksum")


def _damaged(path: pathlib.Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}). Copy it again, or export it again.")


def recall_at_1(embeddings: np.ndarray, labels: np.ndarray) -> float | None:
    """Return R@1 by the rules of `retrieval.evaluate`; None where it is not defined.

    It is not where no label occurs twice, and where a vector is zero or not finite.
    """
    lengths = np.linalg.norm(embeddings, axis=1)
    _, counts = np.unique(labels, return_counts=True)
    if counts.max() < 2 or not np.isfinite(lengths).all() or not lengths.all():
        return None
    report = retrieval.evaluate(embeddings, labels, k=1, engine="exact", metrics="recall", resamples=0, progress=False)
    return report.recall[1]


def _compare(
    path: pathlib.Path,
    wanted: np.ndarray,
    got: np.ndarray,
    change: float | None,
    answer: dict[str, Any],
    limits: dict[str, Limits],
    mark: str,
) -> Check:
    facts = facts_of(path)
    precision = facts.get("quantization", "float32")
    limit = limits[precision]
    failures = []
    if not retrieval.same_model(facts.get("fingerprint", mark), mark):
        failures.append("it was exported from another model")
    # A row that is zero or not finite has no direction: cosine 0.
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = np.nan_to_num((got * wanted).sum(axis=1) / np.maximum(lengths, 1e-12), nan=0.0)
    if cosine.min() < limit.cosine:
        failures.append(f"cosine {cosine.min():.6f} is below {limit.cosine}")
    if change is not None and abs(change) > limit.recall_points + 1e-9:
        failures.append(f"R@1 changes by {change:+.2f} points, more than {limit.recall_points}")
    files = path.rglob("*") if path.is_dir() else [path]
    return Check(
        name=f"{path.parent.name}/{path.name}" if path.is_dir() else path.name,
        engine=engine_of(path),
        precision=precision,
        megabytes=sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
        cosine_min=float(cosine.min()),
        cosine_mean=float(cosine.mean()),
        recall_points=change,
        latency_ms={int(batch): 1000 * seconds for batch, seconds in answer["latency"].items()},
        failures=tuple(failures),
        limits=limit,
    )

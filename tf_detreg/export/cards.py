"""The model card: what was trained, on what, how good it is, and what it is not for."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_detreg import deprecated
from tf_detreg.analysis.smoothness import smoothness_table
from tf_detreg.export.inference import fingerprint, inference_model
from tf_detreg.export.verification import Verification
from tf_detreg.files import read_json
from tf_detreg.retrieval.decision import decision_of
from tf_detreg.retrieval.identity import short
from tf_detreg.retrieval.report import label
from tf_detreg.retrieval.trained_classes import sentence, titled
from tf_detreg.training.run_directory import read_evaluation

UNKNOWN = "Not recorded."
NO_DECISION = "No threshold was fitted: the nearest items are returned, however far they are."


@deprecated.renamed_arguments(licence="license")
def model_card(
    embedder: keras.Model,
    *,
    name: str | None = None,
    data: str = UNKNOWN,
    recipe: Mapping[str, Any] | str = UNKNOWN,
    evaluation: object | None = None,
    smoothness: object | None = None,
    verification: Verification | None = None,
    license: str = UNKNOWN,
    decision: object | None = None,
) -> str:
    """Return a page of Markdown that lies beside an export as its `README.md`.

    Args:
        embedder: The model.
        name: Its title. Default: the model's name.
        data: What it was trained on. Default: not recorded, as for all that follow.
        recipe: How: text, or the run's configuration.
        evaluation: A `retrieval.RetrievalReport`, or text.
        smoothness: The Lipschitz summary: a report with `to_markdown()`, a mapping, or text.
        verification: What `export.verify` found.
        license: Of the weights and the data.
        decision: A `retrieval.Decision`, or text: the score from which on a match counts, its target and what it was
            measured to do. Default: none.

    Returns:
        The text.

    Example:
        >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> print(model_card(model, name="Petals", data="102 flowers").splitlines()[0])
        # Petals
    """
    embedder = inference_model(embedder)
    height, width = embedder.inputs[0].shape[1:3]
    side = "images of any size" if height is None else f"images of {height} × {width} pixels"
    parts = [
        f"# {name or embedder.name}",
        f"Maps {side} (RGB, values 0..255; scaling is inside) to vectors of length 1 in "
        f"{embedder.outputs[0].shape[-1]} dimensions, so that the dot product of two images' vectors says how alike "
        f"they are. {embedder.count_params():,} parameters; fingerprint "
        f"`{short(fingerprint(embedder))}`. Made with tf_detreg.",
        "## Data\n\n" + data,
        "## Recipe\n\n" + _text(recipe),
        "## Retrieval\n\n" + _text(evaluation),
        "## From which score on a match counts\n\n" + _text(NO_DECISION if decision is None else decision),
        "## Smoothness\n\n" + _text(smoothness),
    ]
    if verification is not None:
        parts.append(
            "## Checks of the exported files\n\n"
            f"Each file ran in a process of its own on {verification.images} images and was compared with the Keras "
            "model. What is not within its limits was left out. Latencies are of the machine that exported.\n\n"
            + verification.to_markdown().rstrip()
        )
    parts += [
        "## Use\n\nFor finding similar images. A score by itself is no probability, and a threshold holds for data "
        "like that it was measured on: measure on images of your own. Vectors of different models, or of different "
        "versions of one, must not be compared: embed the gallery again with each new version. Do not use it to "
        "identify people.",
        "## License\n\n" + license,
    ]
    return "\n\n".join(parts) + "\n"


def run_results(directory: str | os.PathLike[str]) -> dict[str, str]:
    """Return what a run says about its embedder: arguments `evaluation`, `smoothness`, `decision` of `model_card`.

    Args:
        directory: Of the run. `evaluation.json` is left by training, `lipschitz.json` by `tf-detreg analyze`,
            `decision.json` by `tf-detreg calibrate`; for one that is missing, the text says which command makes it.

    Returns:
        Three texts of Markdown.

    Raises:
        ValueError: If one of the files is damaged.

    Example:
        >>> run_results("runs/new")["smoothness"]
        'Not measured. `tf-detreg analyze runs/new` measures it; then export again.'
    """
    directory = pathlib.Path(directory)
    train, analyze = f"`tf-detreg train --run {directory} --resume`", f"`tf-detreg analyze {directory}`"
    evaluation = _read(directory / "evaluation.json", train, read_evaluation)
    smoothness = _read(directory / "lipschitz.json", analyze, read_json)
    unfinished = f"Not measured: the run has not ended. {train} ends it."
    unknown = f"Not measured. {analyze} measures it; then export again."
    decision = decision_of(directory)
    calibrate = f"{NO_DECISION} `tf-detreg calibrate {directory}` fits one; then export again."
    return {
        "evaluation": recall_table(evaluation) if evaluation else unfinished,
        "smoothness": smoothness_table(smoothness) if smoothness else unknown,
        "decision": calibrate if decision is None else decision.to_markdown().rstrip(),
    }


def recall_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Return Markdown of `evaluation.json`: columns for test and validation classes, in percent.

    Where a part of the test classes was trained on, those and the others have a column of their own.
    """
    reports = titled(reports)
    parts = list(reports)
    names = list(dict.fromkeys(name for part in parts for name in reports[part]["metrics"]))
    lines = ["| % (95 % interval over classes) | " + " | ".join(parts) + " |"]
    lines.append("|---|" + "---:|" * len(parts))
    lines += [
        f"| {label(name)} | " + " | ".join(_percent(reports[part], name) for part in parts) + " |" for name in names
    ]
    for part in parts:
        about = reports[part]
        searched = f"{about['queries']:,} queries of {about['classes']:,} classes among {about['gallery']:,} items"
        trained = about.get("trained_classes")
        known = "" if trained is None else " " + sentence(trained, about["classes"])
        lines += ["", f"{part.capitalize()}: {searched}, {about['protocol']}, {about['engine']} search.{known}"]
    return "\n".join(lines)


def _percent(report: Mapping[str, Any], metric: str) -> str:
    value, interval = report["metrics"].get(metric), report["intervals"].get(metric)
    if value is None:
        return "–"
    known = interval and None not in interval
    return f"{100 * value:.2f}" + (f" ({100 * interval[0]:.2f} – {100 * interval[1]:.2f})" if known else "")


def _read(path: pathlib.Path, command: str, read: Callable[[pathlib.Path], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file of the run says, if it is there; `command` is what writes it."""
    try:
        return read(path) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{error} {command} computes it again.") from error


def _text(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if hasattr(value, "to_markdown"):
        result: str = value.to_markdown().rstrip()
        return result
    return "```json\n" + json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n```"

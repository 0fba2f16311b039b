"""The model card: what was trained, on what, how good it is, and what it is not for."""

import json
from collections.abc import Mapping

import keras

from tf_detreg.export.inference import fingerprint, inference_model
from tf_detreg.export.verification import Verification

UNKNOWN = "Not recorded."


def model_card(
    embedder: keras.Model,
    *,
    name: str | None = None,
    data: str = UNKNOWN,
    recipe: Mapping | str = UNKNOWN,
    evaluation: object | None = None,
    smoothness: object | None = None,
    verification: Verification | None = None,
    licence: str = UNKNOWN,
) -> str:
    """A page of Markdown that lies beside an export as its `README.md`.

    Args:
        embedder: The model.
        name: Its title. Default: the model's name.
        data: What it was trained on.
        recipe: How: text, or the run's configuration.
        evaluation: A `retrieval.RetrievalReport`, or text.
        smoothness: The Lipschitz summary: a report with `to_markdown()`, a mapping, or text.
        verification: What `export.verify` found.
        licence: Of the weights and the data.

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
        f"`{fingerprint(embedder)}`. Made with tf_detreg.",
        "## Data\n\n" + data,
        "## Recipe\n\n" + _text(recipe),
        "## Retrieval on classes it never saw\n\n" + _text(evaluation),
        "## Smoothness\n\n" + _text(smoothness),
    ]
    if verification is not None:
        parts.append(
            "## Checks of the exported files\n\n"
            f"Each file ran in a process of its own on {verification.images} images and was compared with the Keras "
            "model. Latencies are of the machine that exported.\n\n" + verification.to_markdown().rstrip()
        )
    parts += [
        "## Use\n\nFor finding similar images. A score is no probability, and no threshold holds for all classes: "
        "measure on images of your own. Vectors of different models, or of different versions of one, must not be "
        "compared: embed the gallery again with each new version. Do not use it to identify people.",
        "## Licence\n\n" + licence,
    ]
    return "\n\n".join(parts) + "\n"


def _text(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if hasattr(value, "to_markdown"):
        return value.to_markdown().rstrip()
    return "```json\n" + json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n```"

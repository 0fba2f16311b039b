"""`export`, `serve`: from a run to what answers requests."""

import pathlib
from typing import Annotated

import typer

from tf_detreg.cli.app import Data, Exports, Run, command


@command
def export(
    run: Run,
    to: Exports = pathlib.Path("saved_models"),
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the run's.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Run every artifact in a clean process and compare it with Keras.")
    ] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="`saved_model`, `float32`, `float16`, `dynamic`, `int8`; repeat it. Default: all that are within "
            "their limits.",
        ),
    ] = None,
    license: Annotated[
        str, typer.Option("--license", "--licence", help="Of the weights and the data, for the model card.")
    ] = "Not recorded.",
    data: Data = None,
) -> None:
    """Write a SavedModel for TensorFlow Serving, .tflite files for phones and a model card.

    A rounded file (`float16`, `dynamic`, `int8`) that falls below the stated limits is left out. Where the others do,
    or one that `--format` names, nothing is published, and the version before keeps serving. The card holds the run's
    recall table and, after `tf-detreg analyze`, its smoothness.
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


@command
def serve(
    model: Annotated[pathlib.Path, typer.Argument(help="A model's folder, as `export` writes it.")],
    index: Annotated[pathlib.Path | None, typer.Option(help="The index that the search page searches.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. The default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of REST and of the page.")] = 8501,
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
        typer.Option(help="A file with the token that lets clients change the index (PUT and DELETE /items/ID)."),
    ] = None,
) -> None:
    """Serve a model on this machine: TensorFlow Serving's predict API, REST and gRPC, and a page for searching with
    pictures. Changes of the index, by whomever, are seen without a restart.
    """
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

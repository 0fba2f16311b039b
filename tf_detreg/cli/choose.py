"""`backbones`: which pretrained backbone suits your photos."""

import pathlib
from typing import Annotated

import typer

from tf_detreg.cli.app import command, print_table


@command
def backbones(
    data: Annotated[
        str,
        typer.Argument(help="A folder with one folder of images for each class, or other data as `train` takes it."),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Backbones, as `train --backbone` takes them: `efficientnet_lite0`, `ResNet50`, `hub:dinov2_small`, "
            "`hub:FOLDER`; `NAME@SIZE` at another image size, such as `hub:dinov2_small@224`. Default: three small "
            "ones, of which two are downloaded (12 and 90 MB)."
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Also train a linear head on the features, for so many epochs; 20 take seconds.")
    ] = 0,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels, for names without `@SIZE`.")
    ] = None,
    output: Annotated[
        pathlib.Path, typer.Option("--output", help="The folder for backbones.json and backbones.png.")
    ] = pathlib.Path("runs/backbones"),
    seed: Annotated[int, typer.Option(help="Says which classes are the validation classes, as for `train`.")] = 0,
) -> None:
    """Compare pretrained backbones on your photos before you train.

    Each backbone stays as it is, and turns the photos of the validation classes (the fifth that `train` holds back)
    into features. R@1 is the share of photos whose nearest neighbor is of their class; MAP@R says how well all their
    neighbors are ranked. Where the intervals of two backbones overlap much, so few classes do not say which is better.
    Fine-tuning raises the numbers and may change the order of close ones. Beside them: images a second of the model on
    this machine, parameters, and the size of its weights in 8 bits, for phones.

    Features are kept: asked again, or by `train --features` with the same backbone, they are read from the cache. What
    cannot be loaded (no network, another size) is named, and the others go on.

    Examples: `tf-detreg backbones PHOTOS/`, `tf-detreg backbones PHOTOS/ efficientnet_lite0@96 hub:dinov2_small@224
    --epochs 20`.
    """
    from tf_detreg.experiments import candidates

    compared = candidates.compare(data, names or (), epochs=epochs, image_size=image_size, seed=seed)
    for name, reason in compared.failures.items():
        typer.echo(f"Left out    {name}: {reason}", err=True)
    if not compared.candidates:
        raise ValueError("Not one of the backbones could be loaded; each reason is above.")
    title = f"{compared.images} images of {compared.classes} validation classes, in %"
    print_table(title, compared.rows())
    for path in compared.save(output):
        typer.echo(f"{'Picture' if path.suffix == '.png' else 'Numbers':11} {path}")
    best, fastest = compared.candidates[0], compared.cheapest()
    typer.echo(f"Best        {compared.train_line(best)}")
    if fastest is not None and fastest != best:
        typer.echo(f"Fastest in its interval  {compared.train_line(fastest)}")

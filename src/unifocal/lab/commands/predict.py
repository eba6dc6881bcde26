"""`unifocal predict`: masks for new images."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from unifocal.lab.commands.options import Layout
from unifocal.lab.commands.running import interruptible
from unifocal.lab.commands.tables import say
from unifocal.lab.words import counted

MODEL = "Output folder of `train` or `compare` (of several DATA: the folder of one in it), or one of its runs."


def predict(
    model: Annotated[Path, typer.Argument(help=MODEL, show_default=False)],
    images: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")] = Path("predictions"),
    loss: Annotated[
        str | None, typer.Option(help="Of a comparison: the loss whose networks to use.", show_default=False)
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Of a comparison: the network to use.", show_default=False)
    ] = None,
    layout: Layout = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
) -> None:
    """Write a mask for every image, on its own grid and with its own header.

    The networks of all folds and seeds of a loss are averaged; which are missing is told. The same command again
    continues what was interrupted.
    """
    from rich.console import Console

    errors = Console(stderr=True)
    with interruptible(errors, "Whole masks are kept: the same command goes on from there."):
        from unifocal.lab.prediction import find_model
        from unifocal.lab.prediction import predict as predict_all
        from unifocal.lab.progress import choose_track

        found = find_model(model, loss, network)
        if found.warning:
            say(errors, found.warning)
        say(errors, f"predicting with {found.title}")
        paths = predict_all(found, images, out, layout, device, choose_track(errors), partial(say, errors))
    print(f"{counted(len(paths), 'mask')}: {out}")

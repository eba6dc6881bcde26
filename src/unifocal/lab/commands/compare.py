"""`unifocal compare`: losses and networks on the same folds."""

from pathlib import Path
from typing import Annotated

import typer

from unifocal.lab.commands.options import with_settings
from unifocal.lab.commands.running import compare_aloud
from unifocal.lab.settings import SECTIONS, Settings


@with_settings(*SECTIONS)
def compare(
    settings: Settings,
    data: Annotated[list[Path], typer.Argument(help="Folders of images and masks, 2D or 3D.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder; runs/<names of DATA> if not given.", show_default=False),
    ] = None,
) -> None:
    """Train networks with each loss on the same folds, and compare.

    The same command again continues what was interrupted, retries what failed and repeats nothing.
    One output folder holds one choice of data sets and folds.
    """
    name = "-".join(folder.expanduser().resolve().name for folder in data)
    compare_aloud(data, settings, out or Path("runs") / name)

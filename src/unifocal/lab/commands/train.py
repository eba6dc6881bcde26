"""`unifocal train`: one network with one loss, to be used."""

from pathlib import Path
from typing import Annotated

import typer

from unifocal.lab.commands.options import with_settings
from unifocal.lab.commands.running import compare_aloud
from unifocal.lab.errors import LabError
from unifocal.lab.settings import SECTIONS, Settings


@with_settings(*SECTIONS, proposed=True, losses="unified-focal", division="whole")
def train(
    settings: Settings,
    data: Annotated[
        Path | None, typer.Argument(help="Folder of images and masks, 2D or 3D.", show_default=False)
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The same, as A-FL's own command spells it.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "--model-dir", help="Output folder; runs/<name of DATA> if not given.", show_default=False
        ),
    ] = None,
) -> None:
    """Train one network with one loss, for `unifocal predict`.

    With a protocol the loss is the one that its paper proposes.
    The same command again continues what was interrupted.
    """
    folders = [folder for folder in (data, data_dir) if folder is not None]
    if len(folders) != 1:
        got = " and ".join(map(str, folders)) or "none"
        raise LabError(f"expected one folder of images and masks, as DATA or --data-dir; got {got}.")
    for name in ("losses", "networks"):
        chosen = getattr(settings, name)
        if len(chosen) > 1:
            raise LabError(
                f"expected one to train with, as in --{name} {chosen[-1].label}; got {len(chosen)} {name}. "
                "`unifocal compare` takes several."
            )
    compare_aloud(folders, settings, out or Path("runs") / folders[0].expanduser().resolve().name)

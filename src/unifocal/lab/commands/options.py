"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(help="Folder of images and masks, 2D or 3D.", show_default=False)]
Groups = Annotated[
    Path | None, typer.Option(help="CSV that names the patient or group of each image.", show_default=False)
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        "--format",
        help="How DATA is stored, by name (`unifocal layouts`); found out if not given.",
        show_default=False,
    ),
]

"""`unifocal describe`: what a data set holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

from unifocal.lab.commands.options import Data, Groups, Layout
from unifocal.lab.commands.tables import fitting


def describe(
    data: Data,
    groups: Groups = None,
    layout: Layout = None,
    splits: Annotated[
        Path | None, typer.Option(help="JSON of published folds, as nnU-Net and PI-CAI write it.", show_default=False)
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Cases to leave out, by id, with commas.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a data set holds: cases, sizes, spacings, foreground, empty masks, near-duplicates."""
    from rich.console import Console

    from unifocal.lab.data import selection
    from unifocal.lab.data.describe import describe as describe_dataset
    from unifocal.lab.data.reading import check_dataset, list_dataset
    from unifocal.lab.progress import choose_track
    from unifocal.lab.settings import make_settings

    track = choose_track(Console(stderr=True))
    listed, problems = list_dataset(data, layout, groups, splits)
    kept = selection.exclude(listed, make_settings(exclude=exclude or "").exclude)
    description = describe_dataset(check_dataset(kept, problems, track), track)
    if as_json:
        print(json.dumps(description.to_dict(), indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.print(fitting(description.table(), console))

"""`unifocal evaluate`: measures predictions, prints what came of it, writes it as CSV."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.options import Data, Groups, Layout
from unifocal.lab.commands.running import interruptible
from unifocal.lab.commands.tables import fitting, say
from unifocal.lab.errors import LabError
from unifocal.lab.words import counted

if TYPE_CHECKING:
    from rich.table import Table

    from unifocal.lab.data.cases import Dataset
    from unifocal.lab.evaluation import Evaluation


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Folder with a label file for each case (.png, .nii.gz, .mha, ...), called as the case, its image or "
            "its mask; class indices, or the values of DATA's own masks.",
            show_default=False,
        ),
    ],
    data: Data,
    layout: Layout = None,
    groups: Groups = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for metrics.csv and lesions.csv; nothing is written if not given.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure predictions against the truth of a data set: overlap, surfaces, volume, lesions.

    All files are checked before anything is measured.
    """
    from rich.console import Console

    shown, errors = Console(), Console(stderr=True)
    with interruptible(errors, "Nothing was written."):
        from unifocal.lab.data.predictions import list_files, read_predictions
        from unifocal.lab.data.reading import read_dataset
        from unifocal.lab.evaluation import evaluate as measure_all
        from unifocal.lab.progress import choose_track
        from unifocal.lab.results import write_table

        track, folder = choose_track(errors), predictions.expanduser()
        list_files(folder)  # if there are none, that is said before the data set is read
        dataset = read_dataset(data, layout, groups, track=track)
        found = read_predictions(folder, dataset, track)
        if out is not None:
            out = _made(out.expanduser())  # before the measuring, which may take long
        evaluation = measure_all(found, dataset, track)
    for table in _tables(evaluation, dataset):
        shown.print(fitting(table, shown))
    say(shown, f"predictions read as: {found.reading}")
    if out is not None:
        for name, rows in (("metrics", evaluation.metrics), ("lesions", evaluation.lesions)):
            path = out / f"{name}.csv"
            write_table(path, rows)
            say(shown, f"{name + ':':9}{path}")


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"expected a folder to write to; --out {out} cannot be one ({error.strerror}).") from None
    return out


def _tables(evaluation: "Evaluation", dataset: "Dataset") -> "list[Table]":
    """Metrics, then lesions by size, of each class or region."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from unifocal.lab.evaluation import recall_by_size, summarise_cases
    from unifocal.lab.metrics import SIGNED, unit

    spacing = dataset.facts[0].spacing
    summary, sizes = summarise_cases(evaluation.metrics), recall_by_size(evaluation.lesions)
    tables = []
    for name, metrics in summary.groupby("class", sort=False):
        title = Text(f"{dataset.name}, {name}: {counted(len(dataset.cases), 'case')}")
        table = Table("metric", "unit", title=title, box=box.SIMPLE_HEAD)
        for heading in ("mean", "median", "cases", "undefined"):
            table.add_column(heading, justify="right")
        for row in metrics.itertuples():
            label = f"{row.metric}, absolute" if row.metric in SIGNED else row.metric
            numbers = (f"{row.mean:.3f}", f"{row.median:.3f}") if row.cases else ("–", "–")
            table.add_row(label, unit(row.metric, spacing), *numbers, str(row.cases), str(row.undefined))
        tables.append(table)
        thirds = sizes[sizes["class"] == name]
        if not thirds.empty:
            table = Table("lesions", title=Text(f"{name}: lesions found, by size"), box=box.SIMPLE_HEAD)
            for heading in ("px" if spacing is None else "mm³", "number", "found", "recall"):
                table.add_column(heading, justify="right")
            for row in thirds.itertuples():
                extent = f"{_short(row.smallest)} to {_short(row.largest)}"
                table.add_row(row.size, extent, str(row.lesions), str(row.found), f"{row.recall:.3f}")
            tables.append(table)
    return tables


def _short(size: float) -> str:
    return f"{size:.3g}" if size < 100 else f"{size:.0f}"

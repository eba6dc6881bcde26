"""What `compare`, `train` and `demo` have in common: the data read and checked, the runs, and how they ended."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from unifocal.lab.outcome import Comparison

KEPT = "Finished runs and whole epochs are kept: the same command goes on from there."


def compare_aloud(folders: Sequence[Path], settings: Settings, out: Path) -> None:
    """Compare on the data sets in `folders`, print what came of it, and leave with the exit code that fits."""
    from rich.console import Console

    shown, errors = Console(), Console(stderr=True)
    folders = [folder.expanduser() for folder in folders]
    try:
        _check_folders(folders, settings)
        with errors.status("starting") if errors.is_terminal else nullcontext():
            from unifocal.lab.data.reading import check_dataset, list_dataset

            listed = [list_dataset(f, settings.layout, settings.groups, settings.splits) for f in folders]

            from unifocal.lab.comparison import compare
            from unifocal.lab.progress import choose_watcher

            for loss in settings.losses:
                loss.build()  # before every file is looked at, which takes long
            datasets = [check_dataset(dataset, problems) for dataset, problems in listed]
        comparison = compare(datasets, settings, out, choose_watcher(errors))
    except KeyboardInterrupt:
        errors.print(f"\nStopped. {KEPT}")
        raise typer.Exit(130) from None
    except Terminated:
        errors.print(f"\nTerminated. {KEPT}")
        raise typer.Exit(143) from None
    _print(comparison, shown)
    if comparison.failures:
        raise typer.Exit(1)


def _check_folders(folders: Sequence[Path], settings: Settings) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"expected a folder of images and masks; {folder} is none.")
    for name in ("groups", "splits"):
        if len(folders) > 1 and getattr(settings, name):
            raise LabError(f"expected one DATA with --{name}, which names its images; got {len(folders)}.")


def _print(comparison: "Comparison", console: "Console") -> None:
    from unifocal.lab.report import PICTURE, terminal_tables

    for table in terminal_tables(comparison):
        console.print(table)
    for outcome in comparison.failures:
        console.print(f"failed: {outcome.run.title}: {outcome.failure}", markup=False, highlight=False)
    files = [
        ("table", comparison.out / "results.csv"),
        ("summary", comparison.out / "summary.md"),
        *(("picture", experiment.folder / PICTURE) for experiment in comparison.experiments),
    ]
    for name, path in files:
        if path.exists():
            console.print(f"{name + ':':9}{path}", markup=False, highlight=False, soft_wrap=True)

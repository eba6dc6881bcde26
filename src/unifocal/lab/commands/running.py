"""What the commands that run long have in common: data read and checked, and words at an interrupt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from unifocal.lab.data.cases import Dataset
    from unifocal.lab.outcome import Comparison

KEPT = "Finished runs and whole epochs are kept: the same command goes on from there."


@contextmanager
def interruptible(console: "Console", kept: str = KEPT) -> Iterator[None]:
    """Context: Ctrl-C and SIGTERM end the command with a word on what is kept, and the shell's exit code for them."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"\nStopped. {kept}")
        raise typer.Exit(130) from None
    except Terminated:
        console.print(f"\nTerminated. {kept}")
        raise typer.Exit(143) from None


def read_folders(folders: Sequence[Path], settings: Settings, console: "Console") -> "list[Dataset]":
    """The data sets in `folders`, every file checked; mistakes in settings and folders are told before that."""
    folders = [folder.expanduser() for folder in folders]
    _check_folders(folders, settings)
    with console.status("starting") if console.is_terminal else nullcontext():
        from unifocal.lab.data.reading import check_dataset, list_dataset
        from unifocal.lab.data.selection import exclude
        from unifocal.lab.fitting import check_fit

        listed = [list_dataset(f, settings.layout, settings.groups, settings.splits) for f in folders]
        for dataset, _ in listed:
            if dataset.cases:
                check_fit(dataset, settings)
        for loss in settings.losses:
            loss.build()
        kept = [(exclude(dataset, _known(settings.exclude, dataset)), problems) for dataset, problems in listed]
        return [check_dataset(dataset, problems) for dataset, problems in kept]


def compare_aloud(folders: Sequence[Path], settings: Settings, out: Path) -> None:
    """Compare on the data sets in `folders`, print what came of it, and leave with the exit code that fits."""
    from rich.console import Console

    shown, errors = Console(), Console(stderr=True)
    with interruptible(errors):
        datasets = read_folders(folders, settings, errors)

        from unifocal.lab.comparison import compare
        from unifocal.lab.progress import choose_track, choose_watcher
        from unifocal.lab.report import write_report

        comparison = compare(datasets, settings, out, choose_watcher(errors))
        if comparison.is_tested and settings.shard is None:
            write_report(comparison.out, choose_track(errors))
    _print(comparison, shown)
    if settings.shard is not None:
        _print_shard(comparison, settings.shard, shown)
    if comparison.failures:
        raise typer.Exit(1)


def _known(ids: Sequence[str], dataset: "Dataset") -> list[str]:
    """Those that can be left out before the check; of the others it may say why they are no cases."""
    here = {case.id for case in dataset.cases}
    return [name for name in ids if name in here]


def _check_folders(folders: Sequence[Path], settings: Settings) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"expected a folder of images and masks; {folder} is none.")
    for name in ("groups", "splits"):
        if len(folders) > 1 and getattr(settings, name):
            raise LabError(f"expected one DATA with --{name}, which names its images; got {len(folders)}.")


def _print(comparison: "Comparison", console: "Console") -> None:
    from unifocal.lab.commands.tables import fitting, say
    from unifocal.lab.report import PAGE, PICTURE, terminal_tables

    for table in terminal_tables(comparison) if comparison.is_tested else []:
        console.print(fitting(table, console))
    for outcome in comparison.failures:
        say(console, f"failed: {outcome.run.title}: {outcome.failure}")
    if not comparison.is_tested and not comparison.failures:
        say(console, f"trained: unifocal predict {comparison.out} IMAGES")
    files = [
        ("table", comparison.out / "results.csv"),
        ("summary", comparison.out / "summary.md"),
        ("report", comparison.out / PAGE),
        *(("picture", experiment.folder / PICTURE) for experiment in comparison.experiments),
    ]
    for name, path in files:
        if path.exists():
            say(console, f"{name + ':':9}{path}")


def _print_shard(comparison: "Comparison", shard: str, console: "Console") -> None:
    from unifocal.lab.commands.tables import say
    from unifocal.lab.words import counted

    mine, others = len(comparison.outcomes), comparison.elsewhere
    say(
        console,
        f"shard {shard}: {mine} of {counted(mine + others, 'run')}; {others} belong to other shards. "
        f"`unifocal status {comparison.out}` shows all; the same command without --shard writes the tables.",
    )

"""The command `unifocal`: reads arguments, calls the lab, prints what came of it.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unifocal.lab.commands.evaluate import evaluate
from unifocal.lab.commands.options import Data, Groups, Layout
from unifocal.lab.errors import LabError, Terminated

if TYPE_CHECKING:
    from unifocal.lab.outcome import Comparison

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Losses for class-imbalanced medical image segmentation, compared on your own images.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the user end with their text and exit code 2.

    Idle threads of the CPU spin for a moment only and then sleep. Spinning on, GNU OpenMP's default, saves a fifth of
    the time of the smallest networks on idle cores, and makes training many times slower on cores that are shared.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when torch is loaded, which is later
    try:
        app(args=None if arguments is None else list(arguments))
    except LabError as error:
        print(f"unifocal: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(
            f"unifocal: {error.strerror or error}{where}\n"
            "Is the folder writable, and the disk not full? Finished runs and whole epochs are kept: mend it, and the "
            "same command goes on from there.",
            file=sys.stderr,
        )
        sys.exit(2)


@app.command()
def compare(
    data: Data,
    losses: Annotated[
        str,
        typer.Option(help="Losses by name, with commas; arguments as in unified-focal:gamma=0.2:delta=0.7."),
    ] = "dice,tversky,unified-focal",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    epochs: Annotated[int, typer.Option(help="Epochs of each run.")] = 20,
    seed: Annotated[int, typer.Option(help="Of folds, weights, order and augmentation.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; runs/<name of DATA> if not given.", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option(help="Images are resized to size x size.")] = 128,
    width: Annotated[int, typer.Option(help="Channels of the U-Net's first level; the paper's is 64.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of the first epoch.")] = 0.01,
    validation: Annotated[
        float, typer.Option(help="Share of the cases not tested on that chooses the best model.")
    ] = 0.2,
    groups: Groups = None,
    layout: Layout = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Of the CPU; torch's choice if not given.")] = None,
    augment: Annotated[bool, typer.Option(help="Scale, rotate, mirror, deform, change gamma.")] = True,
) -> None:
    """Train a U-Net with each loss on the same folds, and compare.

    The same command again continues what was interrupted, retries what failed and repeats nothing. One output folder
    holds one data set and one set of folds.
    """
    _compare(
        data,
        out or Path("runs") / data.resolve().name,
        losses,
        folds=folds,
        epochs=epochs,
        seed=seed,
        size=size,
        width=width,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validation=validation,
        groups=groups,
        layout=layout,
        device=device,
        threads=threads,
        augment=augment,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("runs/demo"),
) -> None:
    """Compare three losses on made-up ultrasound images: a few minutes on two cores, no data needed."""
    from unifocal.lab.synthetic import write_synthetic

    data = out / "synthetic"
    if not (data / "groups.csv").is_file():  # the last file to be written
        write_synthetic(data, cases=DEMO_CASES, seed=0, size=128)
    _compare(data, out, "dice,tversky,unified-focal", **DEMO)


DEMO_CASES = 80
DEMO: dict[str, Any] = {"folds": 3, "epochs": 24, "size": 64, "width": 8, "batch_size": 4, "learning_rate": 0.03}


@app.command()
def losses() -> None:
    """Print the family of losses: name, equation, paper."""
    from rich.console import Console
    from rich.table import Table

    import unifocal

    table = Table(show_lines=True)
    for heading in ("name and parameters", "equation", "paper"):
        table.add_column(heading, overflow="fold")
    for name in unifocal.available():
        loss = unifocal.build(name)
        what, equation, source = _described(type(loss).__doc__ or "")
        title = f"[bold]{name}[/bold]\n{_plain(loss.extra_repr())}\n{_plain(what)}"
        table.add_row(title, _plain(equation), _plain(source))
    Console().print(table)


@app.command()
def engines() -> None:
    """Print what computes the losses on each device of this machine, and why the others do not."""
    from rich.console import Console
    from rich.table import Table

    import unifocal

    table = Table()
    for heading in ("device", "engine", "is", "serves"):
        table.add_column(heading, overflow="fold")
    for report in unifocal.engines():
        if report.chosen:
            serves = "[green]yes: what engine='auto' takes[/green]"
        else:
            serves = "yes" if report.reason is None else f"[yellow]no:[/yellow] {_plain(report.reason)}"
        table.add_row(report.device, f"[bold]{report.engine}[/bold]", _plain(report.detail), serves)
    Console().print(table)


@app.command()
def layouts() -> None:
    """Print the ways to store a data set that the lab knows, by name."""
    from rich.console import Console
    from rich.table import Table

    from unifocal.lab.data.layouts import LAYOUTS

    table = Table(show_lines=True)
    for heading in ("name", "what lies in the folder"):
        table.add_column(heading, overflow="fold")
    for layout in LAYOUTS.values():
        table.add_row(f"[bold]{layout.name}[/bold]", _plain(layout.looks))
    Console().print(table)


@app.command()
def describe(
    data: Data,
    groups: Groups = None,
    layout: Layout = None,
    splits: Annotated[
        Path | None, typer.Option(help="JSON of published folds, as nnU-Net and PI-CAI write it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a data set holds: cases, sizes, spacings, foreground, empty masks, near-duplicates."""
    from rich.console import Console

    from unifocal.lab.data.describe import describe as describe_dataset
    from unifocal.lab.data.reading import read_dataset
    from unifocal.lab.progress import choose_track

    track = choose_track(Console(stderr=True))
    description = describe_dataset(read_dataset(data, layout, groups, splits, track), track)
    if as_json:
        print(json.dumps(description.to_dict(), indent=2, ensure_ascii=False))
    else:
        Console().print(description.table())


app.command()(evaluate)


def _compare(data: Path, out: Path, losses: str, **values: Any) -> None:
    from rich.console import Console

    # Settings first, before the seconds that torch and Lightning take to import.
    from unifocal.lab.settings import make_settings, parse_losses

    shown, errors = Console(), Console(stderr=True)
    data = data.expanduser()
    try:
        settings = make_settings(losses=parse_losses(losses), **values)
        if not data.is_dir():
            raise LabError(f"expected a folder of images and masks; {data} is none.")
        with errors.status("starting") if errors.is_terminal else nullcontext():
            from unifocal.lab.data.reading import check_dataset, list_dataset
            from unifocal.lab.limits import check_trainable

            listed, problems = list_dataset(data, settings.layout, settings.groups)
            check_trainable(listed)

            from unifocal.lab.comparison import check_losses, compare
            from unifocal.lab.progress import choose_watcher

            check_losses(settings.losses, classes=2)
            dataset = check_dataset(listed, problems)
        comparison = compare(dataset, settings, out, choose_watcher(errors))
    except KeyboardInterrupt:
        errors.print("\nStopped. Finished runs and whole epochs are kept: the same command goes on from there.")
        raise typer.Exit(130) from None
    except Terminated:
        errors.print("\nTerminated. Finished runs and whole epochs are kept: the same command goes on from there.")
        raise typer.Exit(143) from None
    _print_result(comparison, shown)
    if comparison.failures:
        raise typer.Exit(1)


def _print_result(comparison: "Comparison", console: Any) -> None:
    from unifocal.lab.report import terminal_tables

    for table in terminal_tables(comparison):
        console.print(table)
    for outcome in comparison.failures:
        console.print(
            f"failed: {outcome.run.loss.label}, fold {outcome.run.fold}: {outcome.failure}",
            markup=False,
            highlight=False,
        )
    files = {
        "table": comparison.results_file,
        "summary": comparison.summary_file,
        "picture": comparison.picture_file,
    }
    for name, path in files.items():
        if path.exists():
            console.print(f"{name + ':':9}{path}", markup=False, highlight=False, soft_wrap=True)


def _described(docstring: str) -> tuple[str, str, str]:
    """(first line, equation, source) of a loss's docstring."""
    from inspect import cleandoc
    from itertools import takewhile

    lines = cleandoc(docstring).splitlines()

    def block(start: str) -> list[str]:
        first = next((n for n, line in enumerate(lines) if line.strip().startswith(start)), len(lines))
        return [line.strip() for line in takewhile(lambda line: line.strip(), lines[first:])]

    source = takewhile(lambda line: not line.startswith("Differs:"), block("Source:"))
    return "".join(lines[:1]), "\n".join(block("L =")), " ".join(source).removeprefix("Source: ")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)

"""A figure of one column, and how it becomes a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unifocal.lab.errors import LabError
from unifocal.lab.report.figures.style import PAPER, styled
from unifocal.lab.storage import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN = 3.5  # inches: a column of a journal; text is readable at this width
SIZE = 6.8  # of text, in points
DPI = 300  # of PNG
TOLD_AS = {".svg": "Description", ".pdf": "Subject", ".png": "Description"}  # where a file says what it shows
DATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


class Plot(NamedTuple):
    """A figure and what a reader must know of it."""

    figure: "Figure"
    caption: str


@contextmanager
def in_a_column() -> Iterator[None]:
    """Context: figures made here have the report's style, in the size of a column."""
    from matplotlib import rc_context

    small: dict[str, Any] = {"font.size": SIZE, "axes.titlesize": SIZE, "svg.hashsalt": "unifocal"}
    with styled(), rc_context(small):  # type: ignore[arg-type]
        yield


def check_ending(path: Path) -> None:
    """A file that will be written must end as one that can be."""
    if path.suffix.lower() not in TOLD_AS:
        raise LabError(f"--out: expected a file that ends in {', '.join(TOLD_AS)}; got {str(path)!r}.")


def write_plot(plot: Plot, path: Path) -> None:
    """Write it on opaque paper, so that it is readable on any page; equal figures are equal files."""
    ending = path.suffix.lower()
    told: dict[str, Any] = {TOLD_AS[ending]: plot.caption, **DATED[ending]}
    with in_a_column():
        write_with(
            path,
            lambda part: plot.figure.savefig(
                part, format=ending[1:], dpi=DPI if ending == ".png" else "figure", facecolor=PAPER, metadata=told
            ),
        )

"""The trials of a search: how much better than the defaults, by the value of each parameter."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd

from unifocal.lab.report.figures.curves import panels
from unifocal.lab.report.figures.style import ACCENT, MUTED, RULE, Drawing, finish, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIXED = {"fold", "trial", "candidate", "loss", "is_default", "state", "epochs", "validation", "chosen", "test"}


def landscape(
    table: pd.DataFrame, candidate: str, logarithmic: Collection[str], metric: str, name: str
) -> Drawing | None:
    """A panel for each parameter of the recommended loss, from `search.csv`; None where it has no numbers."""
    mine = table[(table["candidate"] == candidate) & table["validation"].notna()]
    numbers = mine[[column for column in mine if column not in FIXED]].select_dtypes("number")
    tried = [column for column in numbers if numbers[column].nunique() > 1]
    if not tried:
        return None
    defaults = mine[mine["is_default"]].set_index("fold")["validation"]
    gain = mine["validation"] - mine["fold"].map(defaults)
    with styled():
        figure, grid = panels(len(tried), 1.9)
        for axes, parameter in zip(grid, tried, strict=True):
            _panel(axes, mine, parameter, gain)
            if parameter in logarithmic:
                _logarithmic(axes)
        grid[0].set_ylabel(f"{metric} −\nthat of the defaults")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return finish(
            figure,
            name,
            f"{metric} of the trials of {candidate} on validation cases, less that of its defaults, by "
            f"{', '.join(tried)}.",
            f"Trials of {candidate}: {metric} on the validation cases less that of the defaults on the same fold, by "
            "the value of each parameter. Trials cut short are left out. The winners of the folds are filled; that "
            "they lie high is how they were chosen.",
        )


def _panel(axes: "Axes", mine: pd.DataFrame, parameter: str, gain: "pd.Series[float]") -> None:
    values, chosen = mine[parameter].to_numpy(float), mine["chosen"].to_numpy(bool)
    axes.axhline(0, color=RULE, lw=0.8)
    axes.plot(values[~chosen], gain[~chosen], "o", mfc="none", mec=MUTED, ms=3.5, mew=0.8, label="trial")
    axes.plot(values[chosen], gain[chosen], "o", color=ACCENT, ms=5, label="winner of a fold")
    axes.set_xlabel(parameter)


def _logarithmic(axes: "Axes") -> None:
    """A logarithmic scale with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")

"""Curves: the losses of training and validation by epoch, and the sweep of a loss's parameters."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unifocal.lab.report.figures.style import ACCENT, MUTED, PAPER, WIDTH, Drawing, finish, interval, new_figure, styled
from unifocal.lab.report.labels import clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # losses that are drawn
POINTS = 120  # of a curve
COLUMNS = 2


def learning(histories: Mapping[str, Sequence[pd.DataFrame]], names: Mapping[str, str], name: str) -> Drawing | None:
    """A panel for each loss, its histories of all folds and seeds as mean and range."""
    found = {
        loss: begun for loss, runs in histories.items() if (begun := [history for history in runs if len(history)])
    }
    if not found:
        return None
    from matplotlib.ticker import MaxNLocator

    losses = list(found)[:PANELS]
    limited = f" The first {PANELS} of {len(found)} losses." if len(found) > PANELS else ""
    with styled():
        figure, grid = panels(len(losses), 1.55)
        for axes, loss in zip(grid, losses, strict=True):
            _curve(axes, _over_runs(found[loss], "train_loss"), MUTED, "training", dashes=(3, 1.5))
            _curve(axes, _over_runs(found[loss], "validation_loss"), ACCENT, "validation", dashes=(1, 0))
            axes.set_title(clipped(names[loss], 26))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            axes.locator_params(axis="y", nbins=4)
        figure.supxlabel("epoch")
        figure.supylabel("loss")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return finish(
            figure,
            name,
            f"Learning curves of {len(losses)} losses, training dashed and validation solid.",
            "Learning curves: the loss of the training batches (dashed) and of the validation cases (solid), "
            "mean over folds and seeds, shaded from the lowest to the highest run. Losses have scales "
            f"of their own, so that heights of different panels say nothing.{limited}",
        )


def panels(number: int, height: float) -> "tuple[Figure, list[Axes]]":
    """So many panels in rows of two, each `height` inches high."""
    rows, columns = -(-number // COLUMNS), min(number, COLUMNS)
    figure = new_figure(0.55 + height * rows, WIDTH * (0.25 + 0.75 * columns / COLUMNS))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[number:]:
        axes.remove()
    return figure, grid[:number]


def _curve(axes: "Axes", curve: pd.DataFrame, colour: str, label: str, dashes: tuple[float, float]) -> None:
    epochs = curve.index.to_numpy() + 1
    axes.fill_between(epochs, curve["min"], curve["max"], color=colour, alpha=0.16, lw=0)
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, curve["mean"], color=colour, lw=1.2, dashes=dashes, label=label, marker=marker, ms=3)


def _over_runs(histories: Sequence[pd.DataFrame], column: str) -> pd.DataFrame:
    """mean, min and max over runs by epoch, as far as any has come; long ones are thinned."""
    table = pd.concat(histories).groupby("epoch")[column].agg(["mean", "min", "max"])
    if len(table) <= POINTS:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, POINTS).round().astype(int))]


def sweep(table: pd.DataFrame, metric: str, name: str) -> Drawing | None:
    """A panel for each stage of `tuning.csv`: validation and test by the value tried, the chosen one marked."""
    stages = list(table.groupby("stage", sort=True)) if len(table) else []
    if not stages:
        return None
    goes_on = False
    with styled():
        figure, grid = panels(len(stages), 1.9)
        for axes, (_, stage) in zip(grid, stages, strict=True):
            goes_on |= _stage(axes, stage)
            axes.set_ylim(_range(table))
            axes.set_ylabel(metric)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        chosen = table[table["chosen"]]
        arrows = " Arrows: it goes on beyond what is possible." if goes_on else ""
        words = ", ".join(f"{row.parameter} = {row.value}" for row in chosen.itertuples())
        return finish(
            figure,
            name,
            f"{metric} by the value of each parameter; chosen: {words}.",
            f"Sweep of the parameters, one after the other: mean {metric} with its 95 % interval over folds.{arrows} "
            "Validation and test stand a little apart sideways so that neither hides the other: both are of the value "
            "between them. What is chosen (ringed) is the best on the validation cases; a case tested on in one "
            "fold may choose in another.",
        )


def _range(table: pd.DataFrame) -> tuple[float, float]:
    """One range for all panels: every mean, and intervals as far as [0, 1] goes."""
    low = min((table[part] - table[f"{part}_half_width"].fillna(0)).min() for part in ("validation", "test"))
    high = max((table[part] + table[f"{part}_half_width"].fillna(0)).max() for part in ("validation", "test"))
    return max(float(low), 0.0) - 0.02, min(float(high), 1.0) + 0.02


def _stage(axes: "Axes", stage: pd.DataFrame) -> bool:
    """Draw a stage; does any interval go on beyond [0, 1]?"""
    goes_on = False
    numbers = pd.to_numeric(stage["value"], errors="coerce")
    x = np.arange(len(stage)) if numbers.isna().any() else numbers.to_numpy(float)
    shift = 0.08 * (float(np.min(np.diff(np.sort(x)))) if len(x) > 1 else 1.0)
    for part, colour, mark, face, places in (
        ("validation", ACCENT, "o", ACCENT, x - shift),
        ("test", MUTED, "s", PAPER, x + shift),
    ):
        for place, mean, half in zip(places, stage[part], stage[f"{part}_half_width"].fillna(0), strict=True):
            goes_on |= interval(axes, place, (mean - half, mean + half), (0, 1), upright=True, color=colour, lw=0.8)
        axes.plot(places, stage[part], color=colour, marker=mark, mfc=face, ms=4, lw=1, label=part)
    chosen = stage["chosen"].to_numpy(bool)
    axes.plot((x - shift)[chosen], stage["validation"][chosen], "o", mfc="none", mec=ACCENT, ms=10, label="chosen")
    axes.set_xticks(x, stage["value"])
    axes.set_xlabel(str(stage["parameter"].iloc[0]))
    return goes_on

"""Curves: the losses of training and validation by epoch, and the sweep of a loss's parameters."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unifocal.lab.report.figures.style import ACCENT, MUTED, PAPER, WIDTH, Drawing, finish, new_figure, styled
from unifocal.lab.report.labels import clipped

PANELS = 12  # losses that are drawn
POINTS = 120  # of a curve
COLUMNS = 3


def learning(histories: Mapping[str, Sequence[pd.DataFrame]], names: Mapping[str, str], name: str) -> Drawing | None:
    """A panel for each loss, its histories of all folds and seeds as mean and range."""
    found = {loss: [h for h in runs if len(h)] for loss, runs in histories.items()}
    found = {loss: runs for loss, runs in found.items() if runs}
    if not found:
        return None
    limited = f" The first {PANELS} of {len(found)} losses." if len(found) > PANELS else ""
    losses = list(found)[:PANELS]
    rows, columns = -(-len(losses) // COLUMNS), min(len(losses), COLUMNS)
    with styled():
        figure = new_figure(0.5 + 1.55 * rows, WIDTH if columns > 1 else WIDTH / 2)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
        for axes, loss in zip(grid, losses, strict=False):
            for column, colour, dashes, label in (
                ("train_loss", MUTED, (3, 1.5), "training"),
                ("validation_loss", ACCENT, (1, 0), "validation"),
            ):
                epochs, mean, low, high = _over_runs(found[loss], column)
                axes.fill_between(epochs, low, high, color=colour, alpha=0.16, lw=0)
                marker = "o" if len(epochs) == 1 else None
                axes.plot(epochs, mean, color=colour, lw=1.2, dashes=dashes, label=label, marker=marker, ms=3)
            axes.set_title(clipped(names[loss], 28))
            axes.locator_params(axis="x", integer=True, nbins=5)
            axes.locator_params(axis="y", nbins=4)
        for axes in list(grid)[len(losses) :]:
            axes.set_axis_off()
        for n, axes in enumerate(figure.axes):
            if n < len(losses):
                axes.tick_params(labelbottom=n + columns >= len(losses))
                if n >= len(losses):
                    axes.set_axis_off()
        for axes in figure.axes[len(losses) :]:
            axes.set_axis_off()
        figure.supxlabel("epoch", fontsize=8.5)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        return finish(
            figure,
            name,
            f"Learning curves of {len(losses)} losses, training dashed and validation solid.",
            "Learning curves: mean over folds and seeds, shaded from the lowest to the highest run. Losses have scales of "
            f"their own, so that heights of different panels say nothing.{limited}",
        )


def _over_runs(histories: Sequence[pd.DataFrame], column: str) -> tuple["np.ndarray", ...]:  # type: ignore[type-arg]
    """(epochs, mean, lowest, highest) over runs, as far as any has come; long ones are thinned."""
    table = pd.concat(histories).groupby("epoch")[column].agg(["mean", "min", "max"])
    if len(table) > POINTS:
        table = table.iloc[np.unique(np.linspace(0, len(table) - 1, POINTS).round().astype(int))]
    return table.index.to_numpy() + 1, *(table[part].to_numpy() for part in ("mean", "min", "max"))


def sweep(table: pd.DataFrame, metric: str, name: str) -> Drawing | None:
    """A panel for each stage of `tuning.csv`: validation and test by the value tried, the chosen one marked."""
    stages = list(table.groupby("stage", sort=True)) if len(table) else []
    if not stages:
        return None
    rows, columns = -(-len(stages) // COLUMNS), min(len(stages), COLUMNS)
    with styled():
        figure = new_figure(0.6 + 1.9 * rows, WIDTH if columns > 1 else WIDTH / 1.6)
        grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for axes, (_, stage) in zip(grid, stages, strict=False):
            _stage(axes, stage)
        for axes in grid[len(stages) :]:
            axes.set_axis_off()
        for axes in grid[::columns]:
            axes.set_ylabel(metric)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
        chosen = table[table["chosen"]]
        words = ", ".join(f"{row.parameter} = {row.value}" for row in chosen.itertuples())
        return finish(
            figure,
            name,
            f"{metric} by the value of each parameter; chosen: {words}.",
            f"Sweep of the parameters, one after the other: mean {metric} with its 95 % interval over folds. What is chosen "
            "(ringed) is the best on the validation cases; those tested on choose nothing.",
        )


def _stage(axes: object, stage: pd.DataFrame) -> None:
    numbers = pd.to_numeric(stage["value"], errors="coerce")
    x = np.arange(len(stage)) if numbers.isna().any() else numbers.to_numpy(float)
    step = float(np.min(np.diff(np.sort(x)))) if len(x) > 1 else 1.0
    for part, colour, marker, shift in (("validation", ACCENT, "o", -0.08), ("test", MUTED, "s", 0.08)):
        face = colour if part == "validation" else PAPER
        axes.errorbar(  # type: ignore[attr-defined]
            x + shift * step,
            stage[part],
            yerr=stage[f"{part}_half_width"].fillna(0),
            color=colour,
            marker=marker,
            mfc=face,
            ms=4,
            lw=1,
            elinewidth=0.8,
            label=part,
        )
    chosen = stage["chosen"].to_numpy(bool)
    place = (x - 0.08 * step)[chosen]
    axes.plot(place, stage["validation"][chosen], "o", mfc="none", mec=ACCENT, ms=10, ls="", label="chosen")  # type: ignore[attr-defined]
    axes.set_xticks(x, stage["value"])  # type: ignore[attr-defined]
    axes.set_xlabel(str(stage["parameter"].iloc[0]))  # type: ignore[attr-defined]

"""A row for each loss: its mean and interval, and its cases."""

import numpy as np
import pandas as pd

from unifocal.lab.report.analysis import MANY, Block
from unifocal.lab.report.figures.style import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    Drawing,
    finish,
    interval,
    new_figure,
    row_height,
    rows_axes,
    styled,
)
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import bounds, heading, value

DOTS = 1500  # cases in all, up to which each is drawn


def shown(block: Block) -> tuple[list[str], str]:
    """The losses that a figure has room for, best first, and a sentence if these are not all."""
    losses = list(block.ranked)[:MANY]
    left = len(block.ranked) - len(losses)
    return losses, f" The first {MANY} of {len(block.ranked)} losses; the tables have all." if left else ""


def means(block: Block, folds: pd.DataFrame, name: str) -> Drawing:
    """Mean and interval over folds, and the mean of each fold; `folds` as `intervals.over_seeds` of the block."""
    losses, limited = shown(block)
    table = block.means(block.metric)
    by_loss = dict(list(folds[folds["metric"] == block.metric].groupby("loss")["value"]))
    goes_on = False
    with styled():
        figure = new_figure(row_height(len(losses)))
        axes = figure.subplots()
        for n, loss in enumerate(losses):
            mean, half = table.loc[loss, ["mean", "half_width"]]
            axes.plot(by_loss[loss], [n] * len(by_loss[loss]), "o", mfc=PAPER, mec=MUTED, ms=4, mew=0.7)
            if np.isfinite(half):
                ends = mean - half, mean + half
                goes_on |= interval(axes, n, ends, bounds(block.metric), color=ACCENT, lw=1.6)
            axes.plot(mean, n, "o", color=ACCENT, ms=5.5)
        rows_axes(axes, [clipped(block.names[loss]) for loss in losses], heading(block.metric, block.spacing))
        arrows = " Arrows: it goes on beyond what is possible." if goes_on else ""
        numbers = ", ".join(f"{block.names[loss]} {value(table.loc[loss, 'mean'], block.metric)}" for loss in losses)
        return finish(
            figure,
            name,
            f"Mean {block.called} of each loss, best first: {numbers}.",
            f"Mean {block.called} with its 95 % t-interval over folds.{arrows} Open dots are means of single "
            f"folds.{limited}",
        )


def cases(block: Block, name: str) -> Drawing:
    """Every case, as a box and, where there are not too many, as a dot."""
    assert block.scores is not None
    losses, limited = shown(block)
    values = dict(zip(block.scores.losses, block.scores.case_means, strict=True))
    columns = [values[loss][np.isfinite(values[loss])] for loss in losses]
    dotted = sum(map(len, columns)) <= DOTS
    with styled():
        figure = new_figure(row_height(len(losses)))
        axes = figure.subplots()
        line = {"color": INK, "linewidth": 0.8}
        axes.boxplot(
            columns,
            positions=range(len(losses)),
            orientation="horizontal",
            widths=0.55,
            showfliers=not dotted,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": ACCENT, "linewidth": 1.8},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": MUTED},
            manage_ticks=False,
        )
        if dotted:
            spread = np.random.default_rng(0)  # of places, not of numbers
            for n, column in enumerate(columns):
                axes.plot(column, n + spread.uniform(-0.2, 0.2, len(column)), ".", color=MUTED, ms=3, alpha=0.6, mew=0)
        rows_axes(axes, [clipped(block.names[loss]) for loss in losses], heading(block.metric, block.spacing))
        medians = ", ".join(
            f"{block.names[loss]} {value(float(np.median(column)), block.metric)}"
            for loss, column in zip(losses, columns, strict=True)
            if len(column)
        )
        dots = "each dot is a case (its place across the row means nothing)" if dotted else "dots are cases beyond them"
        return finish(
            figure,
            name,
            f"{block.called} of every test case by loss. Medians: {medians}.",
            f"{block.called} of every test case. Boxes hold the middle half of the cases, thick lines are medians, "
            f"whiskers reach 1.5 box lengths; {dots}.{limited}",
        )

"""A row for each loss: its mean and interval, its cases, its results by size."""

from collections.abc import Sequence

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
    new_figure,
    row_height,
    rows_axes,
    styled,
)
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import decimals, heading, value
from unifocal.lab.report.sizes import Third

DOTS = 1500  # cases in all, up to which each is drawn
MARKS = {"small": "v", "medium": "o", "large": "^"}


def shown(block: Block) -> tuple[list[str], str]:
    """The losses that a figure has room for, best first, and a sentence if these are not all."""
    losses = list(block.ranked)[:MANY]
    left = len(block.ranked) - len(losses)
    return losses, f" The first {MANY} of {len(block.ranked)} losses; the tables have all." if left else ""


def means(block: Block, folds: pd.DataFrame, name: str) -> Drawing:
    """Mean and interval over folds, and the mean of each fold; `folds` as `results.fold_means` of the block."""
    losses, limited = shown(block)
    table = block.means(block.metric)
    by_loss = dict(list(folds[folds["metric"] == block.metric].groupby("loss")["value"]))
    with styled():
        figure = new_figure(row_height(len(losses)))
        axes = figure.subplots()
        for n, loss in enumerate(losses):
            mean, half = table.loc[loss, ["mean", "half_width"]]
            axes.plot(by_loss[loss], [n] * len(by_loss[loss]), "o", mfc=PAPER, mec=MUTED, ms=4, mew=0.7)
            if np.isfinite(half):
                axes.plot([mean - half, mean + half], [n, n], color=ACCENT, lw=1.6, solid_capstyle="round")
            axes.plot(mean, n, "o", color=ACCENT, ms=5.5)
        rows_axes(axes, [clipped(block.names[loss]) for loss in losses], heading(block.metric, block.spacing))
        if decimals(block.metric) == 3:  # a fraction: intervals may leave what is possible
            low, high = axes.get_xlim()
            axes.set_xlim(max(low, -0.03), min(high, 1.03))
        numbers = ", ".join(f"{block.names[loss]} {value(table.loc[loss, 'mean'], block.metric)}" for loss in losses)
        return finish(
            figure,
            name,
            f"Mean {block.metric} of each loss, best first: {numbers}.",
            f"Mean {block.metric} with its 95 % t-interval over folds. Open dots are the means of the single folds.{limited}",
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
            f"{block.metric} of every test case by loss. Medians: {medians}.",
            f"{block.metric} of every test case. Boxes hold the middle half of the cases, the thick line is the median, "
            f"whiskers reach 1.5 box lengths; {dots}.{limited}",
        )


def sizes(block: Block, name: str) -> Drawing | None:
    """Two panels: the metric by the size of a case's foreground, and the share of lesions found by their size."""
    panels = [
        (block.case_thirds, block.metric, "cases"),
        (block.lesion_thirds, "lesions found", "lesions"),
    ]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None
    losses, limited = shown(block)
    with styled():
        figure = new_figure(row_height(len(losses)) + 0.5)
        for axes, (thirds, label, what) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _thirds(axes, thirds, losses)
            names = (
                [clipped(block.names[loss], 22) for loss in losses] if axes.get_subplotspec().is_first_col() else None
            )
            rows_axes(axes, names or [""] * len(losses), label)
            axes.set_title(f"by thirds of the {what}")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
        words = "; ".join(f"{what}: {_in_words(thirds, block)}" for thirds, _, what in panels)
        return finish(
            figure,
            name,
            f"Results by size. {words}.",
            f"Results by size. Left, {block.metric} of cases by thirds of the size of their foreground, with bootstrap "
            "intervals over cases; right, the share of lesions found by thirds of the lesions' sizes."
            f"{limited}",
        )


def _thirds(axes: object, thirds: Sequence[Third], losses: Sequence[str]) -> None:
    for third in thirds:
        rows = third.rows.set_index("loss")
        offset = 0.22 * (list(MARKS).index(third.name) - 1)
        colour = {"small": ACCENT, "medium": MUTED, "large": INK}[third.name]
        for n, loss in enumerate(losses):
            if loss not in rows.index:
                continue
            mean, low, high = rows.loc[loss, ["mean", "low", "high"]]
            if np.isfinite(low):
                axes.plot([low, high], [n + offset] * 2, color=colour, lw=1)  # type: ignore[attr-defined]
            label = third.name if n == 0 else None
            axes.plot(mean, n + offset, MARKS[third.name], color=colour, ms=4.5, label=label)  # type: ignore[attr-defined]


def _in_words(thirds: Sequence[Third], block: Block) -> str:
    best = block.ranked[0]
    parts = []
    for third in thirds:
        mean = third.rows.set_index("loss")["mean"].get(best, float("nan"))
        parts.append(f"{third.name} {value(float(mean), 'DSC')}")
    return f"{block.names[best]} {', '.join(parts)}"

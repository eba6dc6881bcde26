"""Precision against recall: what a loss trades for what."""

from typing import TYPE_CHECKING

import numpy as np

from unifocal.lab.report.analysis import Block
from unifocal.lab.report.figures.means import shown
from unifocal.lab.report.figures.style import (
    ACCENT,
    MUTED,
    RULE,
    WIDTH,
    Drawing,
    finish,
    inches,
    interval,
    new_figure,
    styled,
)
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.15  # inches between the names of two losses


def precision_recall(block: Block, name: str) -> Drawing | None:
    """A point for each loss with its intervals over folds, and lines of equal F1."""
    precision, recall = block.means("precision"), block.means("recall")
    losses, limited = shown(block)
    losses = [
        loss
        for loss in losses
        if loss in precision.index
        and loss in recall.index
        and np.isfinite([precision.loc[loss, "mean"], recall.loc[loss, "mean"]]).all()
    ]
    if not losses:
        return None
    with styled():
        called = [clipped(block.names[loss], 24) for loss in losses]
        beside = max(map(inches, called)) + 0.8
        side = max(min(WIDTH - beside, 3.2), LINE * (len(losses) + 1))
        figure = new_figure(side + 0.7, side + beside, layout="compressed")
        axes = figure.subplots()
        points = np.array([[recall.loc[loss, "mean"], precision.loc[loss, "mean"]] for loss in losses], float)
        low, high = _frame(points)
        within, goes_on = (max(low, 0.0), min(high, 1.0)), False
        _equal_f1(axes, low, high)
        for loss, (x, y) in zip(losses, points, strict=True):
            for half, line in ((recall.loc[loss, "half_width"], "x"), (precision.loc[loss, "half_width"], "y")):
                if np.isfinite(half):
                    middle, place = (x, y) if line == "x" else (y, x)
                    ends = middle - half, middle + half
                    goes_on |= interval(axes, place, ends, within, line == "y", color=MUTED, lw=0.6, alpha=0.55)
            axes.plot(x, y, "o", color=ACCENT, ms=5.5)
        heights = _label_heights(points[:, 1], low, high, LINE / side * (high - low))
        for text, (x, y), place in zip(called, points, heights, strict=True):
            axes.annotate(
                text,
                (x, y),
                (high + 0.03 * (high - low), place),
                va="center",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": ACCENT,
                    "lw": 0.7,
                    "linestyle": (0, (1, 2)),
                    "shrinkA": 1,
                    "shrinkB": 4,
                },
            )
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="recall", ylabel="precision", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([tick for tick in axis.get_ticklocs() if max(low, -1e-9) <= tick <= min(high, 1 + 1e-9)])
        arrows = " Arrows: they go on beyond the frame, or beyond what is possible." if goes_on else ""
        words = ", ".join(
            f"{block.names[loss]} {value(y, 'precision')} and {value(x, 'recall')}"
            for loss, (x, y) in zip(losses, points, strict=True)
        )
        return finish(
            figure,
            name,
            f"Mean precision and recall of each loss: {words}.",
            "Mean precision against mean recall, with 95 % intervals over folds. Grey lines join equal F1 of the "
            f"two means, written at their upper ends.{arrows}{limited}",
        )


def _frame(points: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    """One range for both axes that holds all points, no narrower than 0.1."""
    low, high = float(points.min()), float(points.max())
    pad = max(0.12 * (high - low), (0.12 - (high - low)) / 2, 0.02)
    return max(low - pad, -0.02), min(high + pad, 1.02)


def _equal_f1(axes: "Axes", low: float, high: float) -> None:
    """Lines that reach the upper edge, as far as their values have room there."""
    span, last = high - low, -np.inf
    step = 0.1 if span > 0.4 else 0.05 if span > 0.2 else 0.02
    for f1 in np.arange(step, 1, step):
        x = f1 * high / (2 * high - f1)
        if not max(low, last + 0.12 * span) <= x <= high:
            continue
        places = np.linspace(x, high, 200)
        heights = f1 * places / (2 * places - f1)
        axes.plot(places, heights, color=RULE, lw=0.7, zorder=0)
        axes.text(x, high + 0.02 * span, f"{f1:.{1 if step == 0.1 else 2}f}", ha="center", va="bottom", color=MUTED)
        last = x
    axes.text(high + 0.08 * span, high + 0.02 * span, "equal F1", va="bottom", color=MUTED)


def _label_heights(
    heights: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", low: float, high: float, step: float
) -> list[float]:
    """A height for each label beside the frame, in the order of the points, at least a step apart."""
    order = np.argsort(heights, kind="stable")
    places = heights[order].copy()
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + step)
    over = max(places[-1] - high, 0)
    places -= over
    for n in range(len(places) - 2, -1, -1):
        places[n] = min(places[n], places[n + 1] - step)
    result = np.empty(len(places))
    result[order] = places
    return [float(place) for place in result]

"""Precision against recall: what a loss trades for what."""

import numpy as np

from unifocal.lab.report.analysis import Block
from unifocal.lab.report.figures.means import shown
from unifocal.lab.report.figures.style import ACCENT, MUTED, RULE, Drawing, finish, interval, new_figure, styled
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import value


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
        figure = new_figure(4.6, 5.2)
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
        for loss, (x, y), place in zip(losses, points, _label_heights(points[:, 1], low, high), strict=True):
            axes.annotate(
                clipped(block.names[loss], 24),
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
            "Mean precision against mean recall, with 95 % intervals over folds. Grey lines join equal F1 of the two "
            f"means.{arrows}{limited}",
        )


def _frame(points: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    """One range for both axes that holds all points, no narrower than 0.1."""
    low, high = float(points.min()), float(points.max())
    pad = max(0.12 * (high - low), (0.12 - (high - low)) / 2, 0.02)
    return max(low - pad, -0.02), min(high + pad, 1.02)


def _equal_f1(axes: object, low: float, high: float) -> None:
    x = np.linspace(max(low, 1e-3), high, 200)
    for f1 in np.arange(0.1, 1, 0.1):
        with np.errstate(divide="ignore", invalid="ignore"):
            y = f1 * x / (2 * x - f1)
        inside = (2 * x > f1) & (y <= high) & (y >= low)
        axes.plot(x[inside], y[inside], color=RULE, lw=0.7, zorder=0)  # type: ignore[attr-defined]


def _label_heights(
    heights: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", low: float, high: float
) -> list[float]:
    """A height for each label beside the frame, in the order of the points, none upon another."""
    step = (high - low) / max(len(heights) + 1, 18)
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

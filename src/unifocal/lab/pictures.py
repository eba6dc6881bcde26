"""One picture of the comparison: truth and every loss's contour on the best, the median and the worst image.

The images are ranked by their mean DSC over losses, among those that have foreground and that every finished loss was
tested on. The first column shows the whole image and, framed, the part that the other columns enlarge.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.outcome import Comparison
from unifocal.lab.storage import write_with
from unifocal.lab.training import read_prediction

TRUTH = "#35c9ff"
PREDICTION = "#ffb000"
Mask = NDArray[np.uint8]


def draw(comparison: Comparison, foreground: Sequence[float]) -> None:
    """Write the picture; without a single finished run there is nothing to draw, and an older picture goes."""
    comparison.picture_file.unlink(missing_ok=True)
    dataset = comparison.dataset
    present = {case.id for case, share in zip(dataset.cases, foreground, strict=True) if share > 0}
    chosen = choose_cases(comparison.table, present)
    if not chosen:
        return
    by_id = {case.id: case for case in dataset.cases}
    fold_of = dict(zip(comparison.table["case"], comparison.table["fold"], strict=True))
    scores = case_scores(comparison.table)
    rows = []
    for title, case_id in chosen:
        case = by_id[case_id]
        predictions = {
            o.run.loss.label: (
                read_prediction(o.folder / "predictions", case_id),
                float(scores.loc[case_id, o.run.loss.label]),
            )
            for o in comparison.outcomes
            if o.failure is None and o.run.fold == fold_of[case_id]
        }
        rows.append((f"{title}\n{case_id}", read_image(case), read_mask(case, dataset), predictions))
    figure = draw_rows(rows, [loss.label for loss in comparison.settings.losses])
    write_with(comparison.picture_file, lambda part: figure.savefig(part, format="png", dpi=110))


def case_scores(table: pd.DataFrame) -> pd.DataFrame:
    """DSC, averaged over classes: one row per case, one column per loss."""
    dsc = table[table["metric"] == "DSC"]
    return dsc.pivot_table(index="case", columns="loss", values="value", aggfunc="mean")


def choose_cases(table: pd.DataFrame, present: set[str]) -> list[tuple[str, str]]:
    """(best, median or worst; case id), without repeats where there are fewer than three cases."""
    scores = case_scores(table)
    scores = scores[scores.index.isin(present)].dropna()
    ranked = scores.mean(axis=1).sort_values(ascending=False, kind="stable").index.tolist()
    if not ranked:
        return []
    places = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    chosen: dict[str, str] = {}
    for title, place in places.items():
        chosen.setdefault(ranked[place], title)
    return [(title, case) for case, title in chosen.items()]


def draw_rows(
    rows: Sequence[tuple[str, NDArray[np.float32], Mask, dict[str, tuple[Mask, float]]]], losses: Sequence[str]
) -> Any:
    """The figure: one row per (title, image, truth, {loss: (prediction, DSC)})."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    columns = 1 + len(losses)
    cell = 2.5
    figure = Figure(figsize=(cell * columns + 0.3, cell * len(rows) + 0.75 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (title, image, truth, predictions) in zip(grid, rows, strict=True):
        top, bottom, left, right = window([truth, *(mask for mask, _ in predictions.values())])
        for column, ax in enumerate(axes):
            ax.imshow(image, cmap="gray", interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            _contours(ax, truth, TRUTH, width=2.2)  # wider, to be seen below an equal prediction
            if column == 0:
                corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
                ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linestyle=":", linewidth=1))
                ax.set_title(title, fontsize=9)
                continue
            ax.set_xlim(left - 0.5, right - 0.5)
            ax.set_ylim(bottom - 0.5, top - 0.5)  # rows count downwards
            loss = losses[column - 1]
            if loss in predictions:
                prediction, dsc = predictions[loss]
                _contours(ax, prediction, PREDICTION)
                nothing = "" if prediction.any() else " (nothing found)"
                ax.set_title(f"{_wrapped(loss)}\nDSC {dsc:.3f}{nothing}", fontsize=9)
            else:
                ax.set_title(f"{_wrapped(loss)}\nfailed", fontsize=9)
    handles = [
        Line2D([], [], color=TRUTH, label="truth"),
        Line2D([], [], color=PREDICTION, label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def window(masks: Sequence[Mask], margin: float = 0.25) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the square around all that is marked, with a margin, moved inside the image."""
    marked = np.any([mask > 0 for mask in masks], axis=0)
    height, width = marked.shape
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    if not len(rows):
        return 0, height, 0, width
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(np.ceil(max(side * (1 + 2 * margin), 24)))

    def span(middle: float, length: int) -> tuple[int, int]:
        extent = min(side, length)
        start = min(max(round(middle - extent / 2), 0), length - extent)
        return start, start + extent

    top, bottom = span((rows[0] + rows[-1] + 1) / 2, height)
    left, right = span((columns[0] + columns[-1] + 1) / 2, width)
    return top, bottom, left, right


def _contours(ax: Any, mask: Mask, colour: str, width: float = 1.3) -> None:
    # Padded, so that a region at the border is closed there; coordinates are pixel centres, as imshow's are.
    rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
    for index in range(1, int(mask.max()) + 1):
        region = np.pad(mask == index, 1).astype(float)
        if region.any():
            ax.contour(columns, rows, region, [0.5], colors=colour, linewidths=width)


def _wrapped(label: str) -> str:
    """A loss with arguments takes a line for its name and one for them."""
    name, _, arguments = label.partition(":")
    return f"{name}\n{arguments.replace(':', ', ')}" if arguments else name

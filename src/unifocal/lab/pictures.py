"""One picture of a data set: truth and every loss's contour on the best, the median and the worst case.

The cases are ranked by their mean DSC over losses, among those that have foreground and that every finished loss was
tested on; of several seeds the first that finished is drawn, with its own DSC. The first column shows the whole image
and, framed, the part that the other columns enlarge. Of a volume it is the slice with most foreground, across the axis
along which its voxels are longest.
"""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE, Case, Dataset
from unifocal.lab.data.files import is_volume
from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.volumes import read_volume
from unifocal.lab.experiment import Experiment, shares
from unifocal.lab.outcome import Comparison, Outcome
from unifocal.lab.preparation import read_prediction
from unifocal.lab.storage import write_with

PICTURE = "contours.png"
WIDTH = 34  # letters of a title
TRUTH = "#35c9ff"
PREDICTION = "#ffb000"
Mask = NDArray[np.uint8]


def draw(comparison: Comparison, experiment: Experiment) -> None:
    """Write the picture; without a single finished run there is nothing to draw, and an older picture goes."""
    path, dataset = experiment.folder / PICTURE, experiment.dataset
    path.unlink(missing_ok=True)
    table = comparison.cases[comparison.cases["dataset"] == dataset.name]
    present = {case.id for case, share in zip(dataset.cases, shares(dataset), strict=True) if share > 0}
    scores = case_scores(table)
    chosen = choose_cases(scores, present)
    if not chosen:
        return
    several = len(comparison.settings.networks) > 1
    columns = {
        (network.label, loss.label): f"{network.label}, {loss.label}" if several else loss.label
        for network in comparison.settings.networks
        for loss in comparison.settings.losses
    }
    seeds = len(comparison.settings.seeds) > 1
    fold_of = dict(zip(table["case"], table["fold"], strict=True))
    by_id = {case.id: (i, case) for i, case in enumerate(dataset.cases)}
    rows = []
    for caption, case_id in chosen:
        i, case = by_id[case_id]
        drawn = scores_by_seed(table, case_id)
        truth = read_mask(case, dataset)
        truth[truth == IGNORE] = 0
        view = View.of(truth, dataset.facts[i].spacing)
        predictions: dict[str, tuple[Mask, str]] = {}
        for outcome in comparison.outcomes:
            key = (outcome.run.network.label, outcome.run.loss.label)
            if _shows(outcome, experiment, fold_of[case_id]) and columns[key] not in predictions:
                mask = read_prediction(outcome.folder / "predictions", case_id)
                dsc = float(drawn.get((*key, outcome.run.seed), np.nan))
                predictions[columns[key]] = (view.cut(mask), note_of(dsc, outcome.run.seed if seeds else None))
        rows.append((f"{caption}\n{case_id}{view.where}", view.cut(_grey(case, dataset)), view.cut(truth), predictions))
    figure = draw_rows(rows, list(columns.values()))
    write_with(path, lambda part: figure.savefig(part, format="png", dpi=110))


def _shows(outcome: Outcome, experiment: Experiment, fold: int) -> bool:
    return outcome.failure is None and outcome.experiment is experiment and outcome.run.fold == fold


def _grey(case: Case, dataset: Dataset) -> NDArray[np.float32]:
    """The first image of a case."""
    if dataset.dimension == 2:
        return read_image(case)
    assert is_volume(case.image)
    return np.asarray(read_volume(case.image).values[0], np.float32)


class View:
    """What of a case is shown: a picture as it is, of a volume one slice."""

    def __init__(self, axis: int | None, index: int) -> None:
        self.axis, self.index = axis, index

    @classmethod
    def of(cls, truth: Mask, spacing: Sequence[float] | None) -> "View":
        if truth.ndim == 2:
            return cls(None, 0)
        axis = int(np.argmax(spacing)) if spacing is not None and max(spacing) > 1.05 * min(spacing) else 2
        others = tuple(n for n in range(3) if n != axis)
        return cls(axis, int((truth > 0).sum(others).argmax()))

    @property
    def where(self) -> str:
        return "" if self.axis is None else f", slice {self.index}"

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """The slice with its first axis to the right and its second upwards, as scans are shown."""
        return values if self.axis is None else values.take(self.index, self.axis).T[::-1]


def case_scores(table: pd.DataFrame) -> pd.DataFrame:
    """DSC, averaged over classes and seeds: one row per case, one column per (network, loss)."""
    dsc = table[table["metric"] == "DSC"]
    return dsc.pivot_table(index="case", columns=["network", "loss"], values="value", aggfunc="mean")


def scores_by_seed(table: pd.DataFrame, case: str) -> "pd.Series[float]":
    """DSC of a case, averaged over classes, by (network, loss, seed): that of a single prediction."""
    dsc = table[(table["metric"] == "DSC") & (table["case"] == case)]
    return dsc.groupby(["network", "loss", "seed"], sort=False)["value"].mean()


def note_of(dsc: float, seed: int | None) -> str:
    """What stands by a prediction; its seed where there are several."""
    known = "no DSC" if np.isnan(dsc) else f"DSC {dsc:.3f}"
    return known if seed is None else f"{known}, seed {seed}"


def choose_cases(scores: pd.DataFrame, present: set[str]) -> list[tuple[str, str]]:
    """(best, median or worst; case id), without repeats where there are fewer than three cases."""
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
    rows: Sequence[tuple[str, NDArray[np.float32], Mask, dict[str, tuple[Mask, str]]]], losses: Sequence[str]
) -> Any:
    """The figure: one row per (title, image, truth, {loss: (prediction, note)})."""
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
                prediction, told = predictions[loss]
                _contours(ax, prediction, PREDICTION)
                nothing = "" if prediction.any() else " (nothing found)"
                ax.set_title(f"{_wrapped(loss)}\n{told}{nothing}", fontsize=9)
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
    """A loss with arguments takes a line for its name, and as many for them as fit over its picture."""
    name, _, arguments = label.partition(":")
    return f"{name}\n{fill(arguments.replace(':', ', '), WIDTH)}" if arguments else name

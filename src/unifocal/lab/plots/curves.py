"""Losses over p_t, and their gradients: two panels for each row, the lesion and the background."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unifocal.lab.choices import LossChoice
from unifocal.lab.plots.probing import P_T, VOXELS, Sides, gradients_of, losses_of
from unifocal.lab.plots.rows import Row
from unifocal.lab.plots.writing import COLUMN, Plot, in_a_column
from unifocal.lab.report.figures.style import ACCENT, INK, new_figure
from unifocal.lab.report.labels import clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours for the colour-blind, the yellow left out; the dashes tell the curves without any colour.
COLOURS = (ACCENT, "#d55e00", "#009e73", INK, "#cc79a7", "#e69f00", "#56b4e9", "#85878f")
DASHES = (
    *((1, 0), (4.5, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5)),
    *((2.5, 1), (8, 2), (4, 1, 1, 1, 1, 1), (1, 2.5)),
)
LOWEST = 0.05  # p_t below which a curve may leave the panel, as every logarithm does
FAINTEST = 1e-3  # gradient at which the panel ends
SAME = 1e-5  # curves closer than this are one: smoothing is below it
ROW = 1.42  # inches
WIDE = 0.043  # inches of a letter of the legend, about
NAMES = ("lesion", "background")


@dataclass(frozen=True)
class Quantity:
    """What is drawn over p_t.

    Attributes:
        measure: of a loss, at a share of lesion.
        axis: name of the vertical axis.
        logarithmic: is that axis?
        means: the quantity, in a sentence of the caption.
    """

    measure: Callable[[LossChoice, float], Sides]
    axis: str
    logarithmic: bool
    means: str


LOSS = Quantity(
    losses_of,
    "loss of the class",
    False,
    "Losses over pₜ. Each class counts alone: its voxels in means over voxels, its overlap in means over regions.",
)
GRADIENT = Quantity(
    gradients_of,
    "N |∂L/∂z| of a voxel",
    True,
    f"Gradients over pₜ: the pull of the whole loss L on the logit z of one of the N = {VOXELS} voxels, times N, so "
    "that cross-entropy has 1 - pₜ.",
)
QUANTITIES = {"curves": LOSS, "gradient": GRADIENT}


def draw_curves(rows: Sequence[Row], quantity: Quantity, share: float) -> Plot:
    """Two panels for each row, with one legend for all, as all have the same labels."""
    measured = [{label: quantity.measure(choice, share) for label, choice in row.curves.items()} for row in rows]
    labels = list(rows[0].curves)
    with in_a_column():
        columns = max(1, min(len(labels), 4, int((COLUMN - 0.2) / (0.45 + WIDE * max(map(len, labels))))))
        figure = new_figure(0.42 + ROW * len(rows) + 0.13 * -(-len(labels) // columns), COLUMN)
        grid = figure.subplots(len(rows), 2, squeeze=False, sharex=True, sharey="row")
        for row, curves, panels in zip(rows, measured, grid, strict=True):
            for side, axes in enumerate(panels):
                for look, label in zip(_looks(len(labels), row.varies), labels, strict=True):
                    axes.plot(P_T, curves[label][side], label=clipped(label), **look)
            _scale(panels[0], curves, quantity)
            panels[0].set_ylabel(f"{clipped(row.title, 30)}\n{quantity.axis}" if row.title else quantity.axis)
        for axes, name, part in zip(grid[0], NAMES, (share, 1 - share), strict=True):
            axes.set_title(f"{name} ({100 * part:.3g} %)")
        figure.supxlabel(_x_axis(share), fontsize="medium")
        figure.legend(
            *grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, handlelength=2.8
        )
    return Plot(figure, _caption(rows, measured, quantity, share))


def _looks(number: int, varies: bool) -> list[dict[str, Any]]:
    """How each curve looks: colours of their own, or from dark to light where a number varies. Later ones are thinner,
    so that those that lie on one another are all seen."""
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0, 0.85, number)) if varies else COLOURS[:number]
    widths = np.linspace(1.5, 1.1, number)
    return [{"color": c, "dashes": d, "lw": w} for c, d, w in zip(colours, DASHES, widths, strict=False)]


def _scale(axes: "Axes", curves: dict[str, Sides], quantity: Quantity) -> None:
    """An axis that shows every curve from LOWEST on; gradients end where they have all but vanished."""
    values = np.array([side[P_T >= LOWEST] for sides in curves.values() for side in sides])
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    if quantity.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(FAINTEST, 1.5 * max(float(values.max()), 10 * FAINTEST))
    else:
        low, high = min(float(values.min()), 0.0), float(values.max())
        axes.set_ylim(low - 0.02 * (high - low), 1.03 * high if high > 0 else 0.02)


def _x_axis(share: float) -> str:
    balanced = " = Tversky index" if share == 0.5 else ""
    return f"probability of the true class pₜ{balanced}"


def _caption(rows: Sequence[Row], measured: Sequence[dict[str, Sides]], quantity: Quantity, share: float) -> str:
    """What is drawn of which images, and which curves cannot be told apart."""
    where = f"In an image, all voxels have the same pₜ, and {100 * share:.3g} % of them are lesion"
    index = "; so the Tversky index is pₜ, whatever δ is." if share == 0.5 else "."
    same = [
        f"{row.title or 'the losses'}: {' = '.join(group)}"
        for row, curves in zip(rows, measured, strict=True)
        for group in _alike(curves)
    ]
    return f"{quantity.means} {where}{index}" + (f" One curve: {'; '.join(same)}." if same else "")


def _alike(curves: dict[str, Sides]) -> list[list[str]]:
    """Groups of labels whose curves lie on one another in both panels."""
    groups: list[list[str]] = []
    for label, sides in curves.items():
        for group in groups:
            if np.allclose(sides, curves[group[0]], rtol=SAME, atol=SAME):
                group.append(label)
                break
        else:
            groups.append([label])
    return [group for group in groups if len(group) > 1]

"""Results by size: of cases by their foreground, and of lesions by their own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unifocal.lab.report.analysis import Block
from unifocal.lab.report.figures.means import shown
from unifocal.lab.report.figures.style import (
    ACCENT,
    INK,
    MUTED,
    Drawing,
    finish,
    new_figure,
    row_height,
    rows_axes,
    styled,
)
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import value
from unifocal.lab.report.sizes import Third

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"small": ("v", ACCENT, -0.22), "medium": ("o", MUTED, 0.0), "large": ("^", INK, 0.22)}


def by_size(block: Block, name: str) -> Drawing | None:
    """A panel for the cases, one for the lesions, as far as there are any."""
    over_cases = f"{block.called} by thirds of the cases' foreground"
    over_lesions = "the share of lesions found by thirds of their size"
    unit = block.pairs.unit_name
    panels = [
        (block.case_thirds, block.called, "cases", over_cases),
        (block.lesion_thirds, "lesions found", "lesions", over_lesions),
    ]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None
    losses, limited = shown(block)
    with styled():
        figure = new_figure(row_height(len(losses)) + 0.5)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (thirds, label, what, _) in zip(grid, panels, strict=True):
            _draw(axes, thirds, losses)
            is_first = axes is grid[0]
            rows_axes(axes, [clipped(block.names[loss], 22) if is_first else "" for loss in losses], label)
            axes.set_title(f"by thirds of the {what}")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        words = "; ".join(f"{what}: {_in_words(thirds, block)}" for thirds, _, what, _ in panels)
        return finish(
            figure,
            name,
            f"Results by size. {words}.",
            f"Results by size: {' (left), and '.join(text for *_, text in panels)}, with 95 % bootstrap intervals over "
            f"{unit}s.{limited}",
        )


def _draw(axes: "Axes", thirds: Sequence[Third], losses: Sequence[str]) -> None:
    for third in thirds:
        mark, colour, shift = MARKS[third.name]
        rows = third.rows.set_index("loss").reindex(losses)
        places = np.arange(len(losses)) + shift
        axes.hlines(places, rows["low"], rows["high"], color=colour, linewidth=1)
        axes.plot(rows["mean"], places, mark, color=colour, ms=4.5, label=third.name)


def _in_words(thirds: Sequence[Third], block: Block) -> str:
    """The numbers of the best loss."""
    best = block.ranked[0]
    means = (third.rows.set_index("loss")["mean"].get(best, float("nan")) for third in thirds)
    numbers = (f"{third.name} {value(float(mean), 'DSC')}" for third, mean in zip(thirds, means, strict=True))
    return f"{block.names[best]} {', '.join(numbers)}"

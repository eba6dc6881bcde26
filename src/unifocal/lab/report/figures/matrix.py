"""The matrix of p-values as a picture, for more losses than a table of numbers has room for."""

import numpy as np
import pandas as pd

from unifocal.lab.report.figures.style import MUTED, Drawing, finish, new_figure, styled
from unifocal.lab.report.labels import clipped
from unifocal.lab.words import counted

LEVELS = (
    "worse, p ≤ 0.001",
    "worse, p ≤ 0.01",
    "worse, p ≤ 0.05",
    "not told apart",
    "better, p ≤ 0.05",
    "better, p ≤ 0.01",
    "better, p ≤ 0.001",
)
SHADES = ("#b35806", "#e08214", "#fdb863", "#f1f1f1", "#92c5de", "#4393c3", "#2166ac")


def level(p: float, sign: float) -> int:
    """-3 to 3: how sure it is that the row's loss is better (positive) or worse."""
    strength = sum(p <= limit for limit in (0.05, 0.01, 0.001))
    return int(np.sign(sign)) * strength


def matrix(levels: pd.DataFrame, names: dict[str, str], name: str) -> Drawing:
    """`levels` has losses by losses, -3 to 3, NaN where nothing was tested; in the order to be shown."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    n = len(levels)
    with styled():
        figure = new_figure(1.6 + 0.115 * n, 2.4 + 0.115 * n)
        axes = figure.subplots()
        shown = np.ma.masked_invalid(levels.to_numpy(float))
        axes.pcolormesh(shown, cmap=ListedColormap(SHADES), norm=BoundaryNorm(np.arange(-3.5, 4), 7), rasterized=True)
        ticks = [clipped(names[loss], 22) for loss in levels.index]
        axes.set_yticks(np.arange(n) + 0.5, ticks, fontsize=6)
        axes.set_xticks(np.arange(n) + 0.5, ticks, fontsize=6, rotation=90)
        axes.tick_params(length=0)
        axes.set(ylim=(n, 0), aspect="equal")
        for spine in axes.spines.values():
            spine.set_visible(False)
        patches = [
            Patch(facecolor=shade, edgecolor=MUTED, lw=0.4, label=text)
            for shade, text in zip(SHADES, LEVELS, strict=True)
        ]
        figure.legend(handles=patches[::-1], loc="outside lower center", ncols=3, fontsize=6.5)
        better, tested = int((levels > 0).to_numpy().sum()), int(levels.notna().to_numpy().sum()) // 2
        return finish(
            figure,
            name,
            f"Of {counted(tested, 'pair')} of losses {better} are told apart.",
            "Which losses are told apart: the row's loss against the column's, best first, p by Holm over all pairs. "
            "The numbers are in the table of pairs.",
        )

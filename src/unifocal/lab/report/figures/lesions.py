"""How large the lesions of a data set are."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from unifocal.lab.report.figures.style import ACCENT, PAPER, Drawing, finish, new_figure, styled
from unifocal.lab.report.numbers import size
from unifocal.lab.words import counted

WIDE = 30  # ratio of the largest to the smallest lesion, from which on powers of ten are marks enough
SUBS = (1, 1.5, 2, 3, 5, 7)


def histogram(sizes: Mapping[str, "pd.Series[float]"], unit: str, name: str) -> Drawing | None:
    """A panel for each class, sizes on a logarithmic axis; `sizes` of distinct lesions."""
    from matplotlib.ticker import LogLocator

    found = {target: values for target, values in sizes.items() if len(values)}
    if not found:
        return None
    with styled():
        figure = new_figure(0.45 + 1.25 * len(found))
        grid = figure.subplots(len(found), 1, squeeze=False, sharex=True)[:, 0]
        low = min(values.min() for values in found.values())
        high = max(values.max() for values in found.values())
        bins = np.geomspace(low, max(high, low * 1.5), 25)
        for axes, (target, values) in zip(grid, found.items(), strict=True):
            axes.hist(np.clip(values, bins[0], bins[-1]), bins, color=ACCENT, edgecolor=PAPER, linewidth=0.6)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=SUBS if high < WIDE * low else (1,)))
            axes.xaxis.set_major_formatter(lambda size, _: _plain(size))
            axes.xaxis.set_minor_formatter(lambda size, _: "")
            axes.set_ylabel("lesions")
            axes.locator_params(axis="y", integer=True, nbins=4)
            if len(found) > 1:
                axes.set_title(target)
        grid[-1].set_xlabel(f"size [{unit}]")
        words = "; ".join(
            f"{target}: {counted(len(values), 'lesion')}, median {size(values.median())} {unit}, "
            f"{size(values.min())} to {size(values.max())}"
            for target, values in found.items()
        )
        return finish(figure, name, f"Lesion sizes. {words}.", "Sizes of the lesions tested on.")


def _plain(size: float) -> str:
    """A size in few letters: 1500 is 1.5k."""
    return next((f"{size / unit:g}{letter}" for unit, letter in ((1e6, "M"), (1e3, "k")) if size >= unit), f"{size:g}")

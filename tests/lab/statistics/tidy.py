"""Tidy tables from arrays, and the published table that several tests use."""

import numpy as np
import pandas as pd

from unifocal.lab.statistics.datasets import over_datasets
from unifocal.lab.statistics.table import make_scores

# Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), Table 6:
# AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets.
CLASSIFIERS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = {
    "adult (sample)": (0.763, 0.768, 0.771, 0.798),
    "breast cancer": (0.599, 0.591, 0.590, 0.569),
    "breast cancer wisconsin": (0.954, 0.971, 0.968, 0.967),
    "cmc": (0.628, 0.661, 0.654, 0.657),
    "ionosphere": (0.882, 0.888, 0.886, 0.898),
    "iris": (0.936, 0.931, 0.916, 0.931),
    "liver disorders": (0.661, 0.668, 0.609, 0.685),
    "lung cancer": (0.583, 0.583, 0.563, 0.625),
    "lymphography": (0.775, 0.838, 0.866, 0.875),
    "mushroom": (1.000, 1.000, 1.000, 1.000),
    "primary tumor": (0.940, 0.962, 0.965, 0.962),
    "rheum": (0.619, 0.666, 0.614, 0.669),
    "voting": (0.972, 0.981, 0.975, 0.975),
    "wine": (0.957, 0.978, 0.946, 0.970),
}


def make_table(values, folds=5, losses=None, metric="DSC"):
    """`values` of shape (losses, cases) or (losses, seeds, cases); case n is tested in fold n % folds."""
    values = np.asarray(values, float)
    if values.ndim == 2:
        values = values[:, None]
    loss, seed, case = (index.ravel() for index in np.indices(values.shape))
    names = np.array(losses or [f"loss {n}" for n in range(len(values))])
    return pd.DataFrame(
        {
            "loss": names[loss],
            "fold": case % folds,
            "seed": seed,
            "case": np.char.add("case ", case.astype(str)),
            "class": "lesion",
            "metric": metric,
            "value": values.ravel(),
        }
    )


def scores_of(values, folds=5, groups=None, lower_is_better=False, losses=None):
    """The scores of such a table; `groups` holds the group of each case in turn."""
    table = make_table(values, folds, losses)
    if groups is not None:
        groups = {f"case {n}": group for n, group in enumerate(groups)}
    return make_scores(table, "DSC", "lesion", groups=groups, lower_is_better=lower_is_better)


def demsar(names=CLASSIFIERS):
    """The scores of Demšar's classifiers, data sets as units; each of his numbers stands for a data set of one case."""
    columns = [CLASSIFIERS.index(name) for name in names]
    parts = {name: scores_of([[row[n]] for n in columns], folds=1, losses=list(names)) for name, row in AUC.items()}
    return over_datasets(parts)

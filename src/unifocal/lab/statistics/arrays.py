"""Kinds of arrays, and means that leave out what is not there."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]


def mean_where(values: Floats, where: Bools, axis: int) -> Floats:
    """The mean over `axis` of the values that count; NaN where none does."""
    count = where.sum(axis)
    total = np.where(where, values, 0.0).sum(axis)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


def group_means(values: Floats, group: Ints, groups: int) -> Floats:
    """The mean over the rows of each group, column by column, of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    total, count = np.zeros((2, groups, *values.shape[1:]))
    np.add.at(total, group, np.where(defined, values, 0.0))
    np.add.at(count, group, defined)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))

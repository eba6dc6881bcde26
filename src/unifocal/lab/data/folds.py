"""Who is tested when: pure functions from group labels and a seed to folds that never split a group."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.errors import LabError


def merge_groups(*labelings: Sequence[Hashable | None]) -> list[int]:
    """Join cases that share a label in any labeling (patients, near-duplicates), also by way of others.

    None means unknown and joins nothing. Groups are numbered in the order of their first case.
    """
    sizes = sorted({len(labels) for labels in labelings})
    if len(sizes) != 1:
        raise LabError(f"expected labelings of equal length; got lengths {sizes}. Give one label per case.")
    parent = list(range(sizes[0]))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for labels in labelings:
        first: dict[Hashable, int] = {}
        for i, label in enumerate(labels):
            if label is not None:
                # The lower root stays the root, so roots are first cases.
                low, high = sorted((find(first.setdefault(label, i)), find(i)))
                parent[high] = low
    roots = [find(i) for i in range(len(parent))]
    number = {root: n for n, root in enumerate(sorted(set(roots)))}
    return [number[root] for root in roots]


def make_strata(foreground: Sequence[float], labels: Sequence[str | None] | None = None, sizes: int = 3) -> list[str]:
    """Name the stratum of every case: its label, and empty or its size class among the cases with foreground.

    Args:
        foreground: share of each image that is foreground, in any unit.
        labels: diagnosis of each case, or None.
        sizes: number of equally filled size classes.
    """
    shares = np.asarray(foreground, float)
    if labels is not None and len(labels) != len(shares):
        raise LabError(f"expected one label per case, {len(shares)}; got {len(labels)}.")
    present = shares > 0
    cuts = np.quantile(shares[present], np.arange(1, sizes) / sizes) if present.any() else np.empty(0)
    size_names = [
        f"size {1 + int(np.searchsorted(cuts, share))}" if share > 0 else "empty" for share in shares.tolist()
    ]
    if labels is None:
        return size_names
    return [f"{label}, {size}" if label else size for label, size in zip(labels, size_names, strict=True)]


def make_folds(groups: Sequence[Hashable], strata: Sequence[Hashable], k: int, seed: int) -> list[list[int]]:
    """Return the test indices of each of k folds: sorted, disjoint, together every case.

    No group is split. The folds' sizes differ by at most the size of the largest group, and within that
    bound each stratum is spread as evenly as its groups allow.
    """
    _check_lengths(groups, strata)
    if k < 2:
        raise LabError(f"expected at least 2 folds; got {k}.")
    distinct = len(set(groups))
    if distinct < 2:
        raise LabError(
            f"expected at least 2 groups of cases to deal into folds; got {distinct} (of {len(groups)} "
            f"case{'s' * (len(groups) > 1)}). One group is never parted: folds need cases of other patients, too."
        )
    if k > distinct:
        raise LabError(
            f"expected at most as many folds as groups, {distinct} (of {len(groups)} "
            f"case{'s' * (len(groups) > 1)}); got {k} folds. Ask for fewer folds."
        )
    largest = max(len(members) for members in _members(range(len(groups)), groups))

    # The least filled fold is always open, and a fold never passes it by more than the largest group.
    def is_open(filled: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
        return np.asarray(filled + size <= filled.min() + largest)

    return _deal(range(len(groups)), groups, strata, [1 / k] * k, is_open, seed)


def hold_out(
    indices: Sequence[int], groups: Sequence[Hashable], strata: Sequence[Hashable], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split `indices` into (train, validation), both sorted and not empty; no group is split.

    Args:
        indices: the cases to split, positions in `groups` and `strata`.
        groups: group of every case of the data set.
        strata: stratum of every case of the data set.
        fraction: share of `indices` wanted for validation; met to within the size of the largest group.
        seed: the same seed gives the same split.
    """
    _check_lengths(groups, strata)
    if not 0 < fraction < 1:
        raise LabError(f"expected a validation fraction between 0 and 1; got {fraction}.")
    members = _members(indices, groups)
    if len(members) < 2:
        raise LabError(
            f"expected at least 2 groups to hold some out; got {len(members)} (of {len(indices)} "
            f"case{'s' * (len(indices) > 1)}). It takes more data, or fewer folds."
        )
    wanted = min(max(1, round(fraction * len(indices))), len(indices) - 1)
    limits = np.array([len(indices) - wanted, wanted]) + max(map(len, members)) - 1

    def is_open(filled: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
        return np.asarray(filled + size <= limits)

    shares = [1 - wanted / len(indices), wanted / len(indices)]
    train, validation = _deal(indices, groups, strata, shares, is_open, seed)
    return train, validation


def _deal(
    indices: Sequence[int],
    groups: Sequence[Hashable],
    strata: Sequence[Hashable],
    shares: Sequence[float],
    is_open: Callable[[NDArray[np.int64], int], NDArray[np.bool_]],
    seed: int,
) -> list[list[int]]:
    """Deal whole groups into bins, large ones first, each to the open bin with least of its strata so far.

    A bin still empty has the least of everything, so none stays empty while there are groups left.
    """
    stratum_number = {stratum: n for n, stratum in enumerate(dict.fromkeys(strata[i] for i in indices))}
    members = _members(indices, groups)
    counts = np.zeros((len(members), len(stratum_number)), np.int64)
    for g, group in enumerate(members):
        np.add.at(counts[g], [stratum_number[strata[i]] for i in group], 1)
    totals, sizes = counts.sum(0), counts.sum(1)
    shuffled = np.random.default_rng(seed).permutation(len(members))
    # Single cases of one stratum come in a row, rare strata first: the common ones then even out the sizes.
    rarity = np.where(counts > 0, totals, totals.max() + 1).min(1)
    leading = np.where(counts > 0, totals, totals.max() + 1).argmin(1)
    order = shuffled[np.lexsort((leading[shuffled], rarity[shuffled], -sizes[shuffled]))]

    filled = np.zeros((len(shares), len(stratum_number)), np.int64)
    bins: list[list[int]] = [[] for _ in shares]
    for g in order:
        stratum_fill = (filled / (totals * np.asarray(shares)[:, None])) @ counts[g]
        size_fill = filled.sum(1) / np.asarray(shares)
        # Rounded, so that bins of equal fill tie whatever the last bit says.
        preference = np.lexsort((size_fill.round(9), stratum_fill.round(9)))
        is_allowed = is_open(filled.sum(1), int(sizes[g]))
        chosen = next(b for b in preference if is_allowed[b])
        bins[chosen].extend(members[g])
        filled[chosen] += counts[g]
    return [sorted(chosen) for chosen in bins]


def _members(indices: Sequence[int], groups: Sequence[Hashable]) -> list[list[int]]:
    """Return the cases of each group, groups in the order of their first case."""
    members: dict[Hashable, list[int]] = {}
    for i in indices:
        members.setdefault(groups[i], []).append(i)
    return list(members.values())


def _check_lengths(groups: Sequence[Hashable], strata: Sequence[Hashable]) -> None:
    if len(groups) != len(strata) or not groups:
        raise LabError(f"expected one group and one stratum per case; got {len(groups)} and {len(strata)}.")

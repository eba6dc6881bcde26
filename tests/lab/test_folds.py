"""Folds: no group is ever split, everything is tested once, and the parts are as alike as groups allow."""

import ast
import collections
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unifocal.lab.data import folds as folds_module
from unifocal.lab.data.folds import hold_out, make_folds, make_strata, merge_groups
from unifocal.lab.errors import LabError

labelled = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("xyz")), min_size=2, max_size=50)


def sizes_of(groups):
    return collections.Counter(groups).values()


@settings(max_examples=150, deadline=None)
@given(labelled, st.integers(2, 6), st.integers(0, 3))
def test_folds_hold_whole_groups_and_every_case_once(cases, k, seed):
    groups, strata = zip(*cases, strict=True)
    if k > len(set(groups)):
        with pytest.raises(LabError, match="fewer folds" if len(set(groups)) > 1 else "at least 2 groups"):
            make_folds(groups, strata, k, seed)
        return
    folds = make_folds(groups, strata, k, seed)
    assert len(folds) == k
    assert all(folds)
    assert sorted(i for fold in folds for i in fold) == list(range(len(groups)))
    assert all(fold == sorted(fold) for fold in folds)
    for a in range(k):
        for b in range(a):
            assert not {groups[i] for i in folds[a]} & {groups[i] for i in folds[b]}
    lengths = [len(fold) for fold in folds]
    assert max(lengths) - min(lengths) <= max(sizes_of(groups))


@settings(max_examples=150, deadline=None)
@given(labelled, st.floats(0.05, 0.95), st.integers(0, 3), st.data())
def test_hold_out_holds_whole_groups(cases, fraction, seed, data):
    groups, strata = zip(*cases, strict=True)
    indices = data.draw(st.lists(st.sampled_from(range(len(groups))), unique=True, min_size=1))
    chosen = [groups[i] for i in indices]
    if len(set(chosen)) < 2:
        with pytest.raises(LabError, match="at least 2 groups"):
            hold_out(indices, groups, strata, fraction, seed)
        return
    train, validation = hold_out(indices, groups, strata, fraction, seed)
    assert train
    assert validation
    assert sorted(train + validation) == sorted(indices)
    assert not {groups[i] for i in train} & {groups[i] for i in validation}
    wanted = min(max(1, round(fraction * len(indices))), len(indices) - 1)
    assert abs(len(validation) - wanted) < max(sizes_of(chosen))


def test_strata_are_spread_evenly_when_groups_are_single():
    strata = ["rare"] * 10 + ["common"] * 63 + ["middle"] * 27
    for seed in range(5):
        folds = make_folds(range(100), strata, 5, seed)
        counts = [collections.Counter(strata[i] for i in fold) for fold in folds]
        assert {c["rare"] for c in counts} == {2}
        assert {c["common"] for c in counts} <= {12, 13}
        assert {len(fold) for fold in folds} == {20}
        train, validation = hold_out(range(100), range(100), strata, 0.2, seed)
        assert (len(train), len(validation)) == (80, 20)
        assert collections.Counter(strata[i] for i in validation)["rare"] == 2


def test_strata_stay_even_beside_groups():
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 180, 280)).tolist()
    strata = rng.choice(["a", "b", "c"], 280, p=[0.6, 0.3, 0.1]).tolist()
    folds = make_folds(groups, strata, 5, 0)
    for name in "abc":
        share = [sum(strata[i] == name for i in fold) for fold in folds]
        assert max(share) - min(share) <= 3, (name, share)


def test_the_seed_decides_and_nothing_else_does():
    groups, strata = list(range(60)), ["a", "b"] * 30
    np.random.seed(1)  # noqa: NPY002 (the global state must not matter)
    first = make_folds(groups, strata, 5, seed=7)
    np.random.seed(2)  # noqa: NPY002
    assert make_folds(groups, strata, 5, seed=7) == first
    assert make_folds(groups, strata, 5, seed=8) != first
    assert make_folds([f"p{g}" for g in groups], strata, 5, seed=7) == first  # nor what the groups are called
    script = (
        "from unifocal.lab.data.folds import make_folds;"
        "print(make_folds([f'p{g}' for g in range(60)], ['a', 'b'] * 30, 5, seed=7))"
    )
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == str(first)  # also where strings hash differently


def test_folds_are_pinned():
    """A change of this list changes everybody's folds: it must be on purpose, and in the changelog."""
    folds = make_folds([0, 0, 0, 1, 2, 2, 3, 4, 5, 6], list("aabbabbaab"), 3, seed=0)
    assert folds == [[0, 1, 2, 3], [4, 5, 9], [6, 7, 8]]


def test_merge_groups_joins_by_way_of_others():
    patients = ["p", "p", None, "q", None, None]
    alike = [0, 1, 1, 2, 3, 4]
    assert merge_groups(patients, alike) == [0, 0, 0, 1, 2, 3]
    assert merge_groups([None, None]) == [0, 1]
    assert merge_groups([1, 2, 3, 1], [5, 6, 5, 7], [None, "z", None, "z"]) == [0, 0, 0, 0]
    assert merge_groups([]) == []
    # A label means nothing across labelings.
    assert merge_groups([1, 2], [2, 3]) == [0, 1]
    with pytest.raises(LabError, match=r"\[1, 2\]"):
        merge_groups([1], [1, 2])


def test_make_strata():
    shares = [0.0, 1, 2, 3, 4, 5, 60]
    assert make_strata(shares) == ["empty", "size 1", "size 1", "size 2", "size 2", "size 3", "size 3"]
    assert make_strata([0, 9], ["normal", None], sizes=1) == ["normal, empty", "size 1"]
    assert make_strata([0.0]) == ["empty"]
    with pytest.raises(LabError, match="one label per case"):
        make_strata([1, 2], ["a"])


def test_wrong_arguments():
    with pytest.raises(LabError, match="at least 2 folds; got 1"):
        make_folds([1, 2], "ab", 1, 0)
    with pytest.raises(LabError, match=r"groups, 2 \(of 3 cases\); got 3"):
        make_folds([1, 2, 1], "abc", 3, 0)
    with pytest.raises(LabError, match=r"got 1 \(of 1 case\)\. One group is never parted: folds need cases of other"):
        make_folds([1], "a", 2, 0)
    with pytest.raises(LabError, match="got 2 and 1"):
        make_folds([1, 2], "a", 2, 0)
    with pytest.raises(LabError, match="between 0 and 1; got 1"):
        hold_out([0, 1], [1, 2], "ab", 1, 0)


def test_folds_need_numpy_alone():
    """By the source, since the package may have imported anything by now."""
    tree = ast.parse(Path(folds_module.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"collections.abc", "numpy", "numpy.typing", "unifocal.lab.errors"}

"""Splits: who is trained on, who chooses the epoch, who is tested, as dealt or as published."""

from dataclasses import replace
from pathlib import Path

import pytest

from unifocal.lab.data.cases import Case, Dataset, OfficialFold
from unifocal.lab.division import divide, is_divided
from unifocal.lab.errors import LabError
from unifocal.lab.settings import make_settings

N = 20


def make_dataset(parts=None, splits=()):
    cases = tuple(Case(str(i), (Path(f"{i}.png"),), (), part=parts[i] if parts else None) for i in range(N))
    return Dataset("d", "plain", Path(), cases, ("background", "lesion"), splits=splits)


def split(dataset, groups=None, **settings):
    return divide(dataset, groups or list(range(N)), ["all"] * N, make_settings(**settings))


def test_dealt_folds_test_every_case_once_and_hold_a_share_out():
    splits = split(make_dataset(), folds=4, validation=0.2)
    assert sorted(i for s in splits for i in s.test) == list(range(N))
    for s in splits:
        assert sorted((*s.train, *s.validation, *s.test)) == list(range(N))
        assert (len(s.train), len(s.validation), len(s.test)) == (12, 3, 5)


def test_the_whole_is_one_split_without_a_test():
    (only,) = split(make_dataset(), division="whole", validation=0.25)
    assert only.test == () and len(only.validation) == 5 and sorted((*only.train, *only.validation)) == list(range(N))


def test_the_whole_keeps_published_parts_apart():
    parts = ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    (only,) = split(make_dataset(parts), division="whole")
    assert (only.train, only.validation, only.test) == (tuple(range(10)), tuple(range(10, 14)), ())
    (only,) = split(make_dataset(["train"] * 15 + ["test"] * 5), division="whole", validation=0.2)
    assert sorted((*only.train, *only.validation)) == list(range(15)) and len(only.validation) == 3


def test_the_seed_of_the_folds_alone_moves_cases():
    first = split(make_dataset(), split_seed=0)
    assert split(make_dataset(), split_seed=0, seeds="7") == first != split(make_dataset(), split_seed=1)


def test_published_folds_are_kept_and_choose_by_a_share_of_their_training_cases():
    names = [str(i) for i in range(N)]
    folds = (OfficialFold(tuple(names[5:]), tuple(names[:5])), OfficialFold(tuple(names[:10]), tuple(names[10:])))
    splits = split(make_dataset(splits=folds), division="published", validation=0.2)
    assert [s.test for s in splits] == [tuple(range(5)), tuple(range(10, N))]
    assert sorted((*splits[0].train, *splits[0].validation)) == list(range(5, N)) and len(splits[0].validation) == 3


def test_published_parts_are_kept():
    parts = ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    (only,) = split(make_dataset(parts), division="published")
    assert (only.train, only.validation, only.test) == (tuple(range(10)), tuple(range(10, 14)), tuple(range(14, N)))


@pytest.mark.parametrize("second", ["validation", "test"])
def test_with_two_parts_the_second_is_the_test_and_chooses_nothing(second):
    (only,) = split(make_dataset(["train"] * 15 + [second] * 5), division="published", validation=0.2)
    assert only.test == tuple(range(15, N)) and len(only.validation) == 3
    assert sorted((*only.train, *only.validation)) == list(range(15))


def test_without_anything_published_it_says_so():
    assert not is_divided(make_dataset())
    with pytest.raises(LabError, match="--division dealt"):
        split(make_dataset(), division="published")


def test_groups_stay_together():
    groups = [i // 4 for i in range(N)]
    for s in split(make_dataset(), groups, folds=5):
        for part in (s.train, s.validation, s.test):
            assert all(not {groups[i] for i in part} & {groups[i] for i in other} for other in _others(s, part))


def _others(s, part):
    return [other for other in (s.train, s.validation, s.test) if other is not part]


def test_a_case_that_was_excluded_leaves_its_published_fold():
    folds = (OfficialFold(tuple(str(i) for i in range(10)), tuple(str(i) for i in range(10, N))),)
    dataset = make_dataset(splits=folds)
    kept = replace(dataset, cases=dataset.cases[1:])
    (only,) = divide(kept, list(range(N - 1)), ["all"] * (N - 1), make_settings(division="published"))
    assert {kept.cases[i].id for i in (*only.train, *only.validation)} == {str(i) for i in range(1, 10)}

"""Who is trained on, who chooses the epoch, who is tested: the splits of a data set.

    dealt      folds of the cross-validation, dealt anew over all cases
    published  the folds or parts that came with the data. Where these name no cases to choose the epoch by, a share of
               the training cases is held out for it; where they name no test cases but some for validation, those are
               the test, so that nothing is tested on that chose anything
    whole      one split without a test, for a network to be used elsewhere. Published parts are kept apart: those to
               validate on choose the epoch, those to test on are left alone

No split parts a group (patients, near-duplicates), but where it was published so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.folds import hold_out, make_folds
from unifocal.lab.errors import LabError
from unifocal.lab.settings import Settings


@dataclass(frozen=True)
class Split:
    """Positions of a fold's cases in the data set."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def divide(dataset: Dataset, groups: Sequence[int], strata: Sequence[str], settings: Settings) -> tuple[Split, ...]:
    """One split for each fold, as `settings.division` says.

    Raises LabError for more folds than groups, and where nothing was published.
    """
    everybody = range(len(dataset.cases))

    def held_out(cases: Sequence[int], test: Sequence[int]) -> Split:
        train, validation = hold_out(cases, groups, strata, settings.validation, settings.split_seed)
        return Split(tuple(train), tuple(validation), tuple(test))

    parts = {part: tuple(i for i in everybody if dataset.cases[i].part == part) for part in PARTS}
    if settings.division == "whole":
        if parts["train"] and parts["validation"]:
            return (Split(parts["train"], parts["validation"], ()),)
        return (held_out(parts["train"] or everybody, ()),)
    if settings.division == "dealt":
        folds = make_folds(groups, strata, settings.folds, settings.split_seed)
        return tuple(held_out([i for i in everybody if i not in set(test)], test) for test in folds)
    position = {case.id: i for i, case in enumerate(dataset.cases)}
    if dataset.splits:
        folds = [[position[name] for name in fold.validation if name in position] for fold in dataset.splits]
        trains = [[position[name] for name in fold.train if name in position] for fold in dataset.splits]
        return tuple(held_out(train, test) for train, test in zip(trains, folds, strict=True))
    if not parts["train"]:
        raise LabError(
            f"expected folds or parts published with the data; {dataset.name} has none. "
            "Use --division dealt, or --splits FILE."
        )
    if parts["validation"] and parts["test"]:
        return (Split(parts["train"], parts["validation"], parts["test"]),)
    return (held_out(parts["train"], parts["test"] or parts["validation"]),)


PARTS = ("train", "validation", "test")


def is_divided(dataset: Dataset) -> bool:
    """Did folds or parts come with the data?"""
    return bool(dataset.splits) or any(case.part == "train" for case in dataset.cases)

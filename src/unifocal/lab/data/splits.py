"""Folds that were published with a data set: a JSON list of folds, each with the ids to train and to validate on."""

from collections.abc import Sequence
from pathlib import Path

from unifocal.lab.data.cases import OfficialFold
from unifocal.lab.data.problems import some, suggest
from unifocal.lab.data.tables import read_json
from unifocal.lab.errors import LabError
from unifocal.lab.words import counted


def read_splits(
    path: Path, ids: Sequence[str], problems: list[str], notes: list[str] | None = None
) -> tuple[OfficialFold, ...]:
    """Read nnU-Net's `splits_final.json` or PI-CAI's `splits.json`; what does not fit is added to `problems`.

    The file may be that of a larger set: ids that are not here are passed over, which is added to `notes`. A case that
    a fold does not name, or names on both sides, is a problem.
    """
    content = read_json(path)
    try:
        folds = [(list(map(str, fold["train"])), list(map(str, fold["val"]))) for fold in content]
    except (TypeError, KeyError):
        raise LabError(
            f'expected a list of folds, [{{"train": ["a", "b"], "val": ["c"]}}, ...]; {path} holds something else.'
        ) from None
    here = set(ids)
    for number, (train, validation) in enumerate(folds):
        lost = [name for name in ids if name not in {*train, *validation}]
        both = sorted(set(train) & set(validation))
        if lost:
            problems.append(f"{path.name}, fold {number}: names no part for {some(lost)}")
        if both:
            problems.append(f"{path.name}, fold {number}: trains and validates on {some(both)}")
    strange = list(dict.fromkeys(name for fold in folds for part in fold for name in part if name not in here))
    if strange and notes is not None:
        hint = suggest(strange[0], here)
        notes.append(f"{path.name} names {counted(len(strange), 'case')} that the folder lacks: {some(strange)}.{hint}")
    return tuple(
        OfficialFold(tuple(n for n in train if n in here), tuple(n for n in validation if n in here))
        for train, validation in folds
    )

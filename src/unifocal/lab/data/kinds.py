"""Masks of another kind than the others of their set, told from the values that they store."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.cases import Case, Facts
from unifocal.lab.data.files import suffix
from unifocal.lab.data.masks import distinct_values
from unifocal.lab.data.problems import short, some
from unifocal.lab.words import counted

LARGEST_CLASS = 15
LOSSY = (".jpg", ".jpeg")
FULL = (1, 255, 65535)  # what programs write for yes
MANY = 3  # cases


@dataclass(frozen=True)
class Mask:
    """What a mask file holds: its values above 0, sorted."""

    case: str
    path: Path
    values: NDArray[Any]

    @classmethod
    def of(cls, case: Case, path: Path, stored: NDArray[Any]) -> "Mask":
        values = distinct_values(stored)
        return cls(case.id, path, values[values > 0])

    @property
    def is_index(self) -> bool:
        """Whole numbers that may be classes, or nothing?"""
        return bool(((self.values == np.rint(self.values)) & (self.values <= LARGEST_CLASS)).all())

    @property
    def has_labels(self) -> bool:
        """Several of them, in a format that keeps what was written: no smoothing leaves these."""
        return self.is_index and len(self.values) > 1 and suffix(self.path) not in LOSSY

    def but(self, expected: str) -> str:
        """That it holds something else."""
        return (
            f"{self.case}: {short(self.path)} holds {_numbers(self.values)}: expected {expected}. "
            f"Mend the file, or leave the case out: --exclude {shlex.quote(self.case)}"
        )


def labels_of_one(masks: Sequence[Mask]) -> list[str]:
    """Masks of labels among masks of one lesion: which label is the lesion is not known."""
    single = Counter(float(mask.values[0]) for mask in masks if len(mask.values) == 1)
    usual = f", as most masks ({single.most_common(1)[0][0]:g})" if single else ""
    return [mask.but(f"0 and one value for the lesion{usual}") for mask in masks if mask.has_labels]


def mixed_labels(masks: Sequence[Mask]) -> list[str]:
    """Masks of labels and masks that hold none in one set: the fewer ones are the problem."""
    labels, others = ([m for m in masks if m.has_labels], [m for m in masks if not m.is_index])
    if len(labels) > len(others):
        usual = _numbers(np.unique(np.concatenate([mask.values for mask in labels])))
        return [mask.but(f"class indices up to {LARGEST_CLASS}, as in most masks ({usual})") for mask in others]
    return labels_of_one(masks)


def soft_notes(masks: Sequence[Mask]) -> list[str]:
    """That masks which should hold 0 and one more value hold others."""
    soft = [mask for mask in masks if len(mask.values) > 1]
    if not soft:
        return []
    values = _numbers(np.unique(np.concatenate([mask.values[:-1] for mask in soft])))
    return [
        f"expected 0 and one more value in each mask; {len(soft)} of {counted(len(masks), 'mask')} hold others, too "
        f"({values}), as JPEG and smoothing leave them: {some((short(mask.path) for mask in soft), 3)}. Half of a "
        "mask's greatest value and more is lesion."
    ]


def value_notes(masks: Sequence[Mask]) -> list[str]:
    """That the one value of a mask is not that of the others."""
    found: dict[float, list[Mask]] = {}
    for mask in masks:
        if len(mask.values) == 1 and suffix(mask.path) not in LOSSY:
            value = float(mask.values[0])
            found.setdefault(1 if value in FULL else value, []).append(mask)
    if len(found) < 2:
        return []
    (_, most), *others = sorted(found.items(), key=lambda item: -len(item[1]))
    usual = float(most[0].values[0])
    shown = "; ".join(f"{value:g} in {some((short(mask.path) for mask in few), 3)}" for value, few in others)
    return [f"the lesion is {usual:g} in {counted(len(most), 'mask')}, but {shown}. Each of these values is lesion."]


def class_notes(cases: Sequence[Case], facts: Sequence[Facts], classes: Sequence[str]) -> list[str]:
    """Of classes that nobody has declared: those that no mask holds, and those of a single case."""
    holders = [[n for n, fact in enumerate(facts) if fact.voxels[index]] for index in range(len(classes))]
    usual = max(range(1, len(classes)), key=lambda index: len(holders[index]))
    empty = [classes[index] for index in range(1, len(classes)) if not holders[index]]
    notes = []
    if empty:
        notes.append(f"no mask holds {some(empty)}: classes are counted up to the greatest value, {len(classes) - 1}.")
    for index, here in enumerate(holders):
        if len(here) == 1 and len(holders[usual]) >= MANY:
            case, voxels = cases[here[0]], counted(facts[here[0]].voxels[index], "voxel")
            notes.append(
                f"{classes[index]} is in one case only, {case.id} ({voxels}), while {classes[usual]} is in "
                f"{len(holders[usual])}. If this is a mistake, mend {some(map(short, case.masks))}, or leave the case "
                f"out: --exclude {shlex.quote(case.id)}"
            )
    return notes


def _numbers(values: NDArray[Any]) -> str:
    return some(f"{value:g}" for value in values)

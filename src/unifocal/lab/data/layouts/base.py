"""What a layout is: a name, how to know it, and how to list its cases."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unifocal.lab.data.cases import Case, OfficialFold
from unifocal.lab.data.files import natural, stem
from unifocal.lab.data.problems import short

BINARY = ("background", "lesion")


@dataclass(frozen=True)
class Found:
    """The cases that a layout has listed, and what it knows of them; see `cases.Dataset` for the fields.

    classes  None: to be found out from the masks
    splits   the published folds
    """

    cases: list[Case]
    problems: list[str] = field(default_factory=list)
    dimension: int = 2
    classes: tuple[str, ...] | None = BINARY
    values: Mapping[int, int] | None = None
    sequences: tuple[str, ...] = ("image",)
    aligned: bool = True
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    look_alike: bool = False
    splits: tuple[OfficialFold, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One way to store a data set.

    name      as in ``--layout``
    looks     what lies in the folder, in one line
    is_here   does this folder look so?
    read      list its cases; nothing is opened but tables
    refines   layouts that look alike and know less: where both fit, this one is meant
    """

    name: str
    looks: str
    is_here: Callable[[Path], bool]
    read: Callable[[Path], Found]
    refines: tuple[str, ...] = ()


def pair(
    images: Sequence[Path],
    masks: Sequence[Path],
    mask_name: re.Pattern[str] | None = None,
    label: str | None = None,
    part: str | None = None,
) -> tuple[list[Case], list[str]]:
    """Cases and problems: every image gets the masks of its stem, or of its stem and what `mask_name` allows."""
    stems = {stem(path) for path in images}
    owned: dict[str, list[Path]] = {}
    for path in masks:
        match = None if mask_name is None or stem(path) in stems else mask_name.fullmatch(stem(path))
        owned.setdefault(match["stem"] if match else stem(path), []).append(path)
    problems = [f"image without mask: {short(path)}" for path in images if stem(path) not in owned]
    problems += [f"mask without image: {short(p)}" for name in owned if name not in stems for p in owned[name]]
    cases = [
        Case(
            stem(path),
            (path,),
            tuple(sorted(owned[stem(path)], key=lambda mask: natural(stem(mask)))),
            label=label,
            part=part,
        )
        for path in images
        if stem(path) in owned
    ]
    return cases, problems

"""A part of a data set: some of its cases, some of its images, one of its classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unifocal.lab.data.cases import IGNORE, Dataset, Facts, OfficialFold
from unifocal.lab.data.masks import count_classes, read_mask
from unifocal.lab.data.problems import listed, some, suggest
from unifocal.lab.errors import LabError
from unifocal.lab.settings import Settings
from unifocal.lab.words import counted


def select(dataset: Dataset, settings: Settings) -> Dataset:
    """What `exclude`, `sequences`, `target` and `require_target` leave of a checked data set.

    Raises LabError for a case, image or class that is not there, with the nearest that is.
    """
    dataset = exclude(dataset, settings.exclude)
    if settings.sequences is not None:
        dataset = choose_sequences(dataset, settings.sequences)
    if settings.target is not None:
        dataset = choose_target(dataset, settings.target)
    return with_target(dataset) if settings.require_target else dataset


def exclude(dataset: Dataset, ids: Sequence[str]) -> Dataset:
    """Without some cases; works before the check, too, so that a broken file can be left out.

    Cases that were left out before may be named again.
    """
    known = {case.id for case in dataset.cases}
    unknown = [name for name in ids if name not in known and name not in dataset.excluded]
    if unknown:
        problems = [f"no case {name!r}.{suggest(name, known)}" for name in unknown]
        raise LabError(listed(f"exclude: {dataset.name} does not have all of these cases", problems))
    gone = set(ids) & known
    if not gone:
        return dataset
    kept = _keep(dataset, [case.id not in gone for case in dataset.cases])
    left = [case.id for case in dataset.cases if case.id in gone]
    return replace(
        kept, excluded=(*dataset.excluded, *left), notes=(*dataset.notes, f"left out by request: {some(left)}.")
    )


def choose_sequences(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Some images of each case, in the order of the data set."""
    unknown = [name for name in names if name not in dataset.sequences]
    if unknown or not names:
        has = ", ".join(dataset.sequences)
        shown = ", ".join(map(repr, unknown)) or "none"
        hint = suggest(unknown[0], dataset.sequences) if unknown else ""
        raise LabError(f"sequences: expected some of {has}; got {shown}.{hint}")
    positions = tuple(n for n, name in enumerate(dataset.sequences) if name in names)
    if len(positions) == len(dataset.sequences):
        return dataset
    first = dataset.sequences[0]
    if not dataset.aligned and positions[0] != 0:
        raise LabError(f"sequences: expected {first} among them, which has the grid of the masks in {dataset.name}.")
    cases = tuple(
        replace(case, images=tuple(case.images[n] for n in positions))
        if len(case.images) == len(dataset.sequences)
        else case
        for case in dataset.cases
    )
    sequences = tuple(dataset.sequences[n] for n in positions)
    channels = positions if dataset.channels is None else tuple(dataset.channels[n] for n in positions)
    return replace(dataset, cases=cases, sequences=sequences, channels=channels)


def choose_target(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """One class against all else: the union of classes and regions, by name.

    The class is called by these names; regions go, since there is nothing left to unite.
    """
    members = {name: (n,) for n, name in enumerate(dataset.classes) if n > 0} | dict(dataset.regions)
    unknown = [name for name in names if name not in members]
    if unknown or not names:
        shown = ", ".join(map(repr, unknown)) or "none"
        hint = suggest(unknown[0], members) if unknown else ""
        raise LabError(f"target: expected some of {', '.join(members)}; got {shown}.{hint}")
    chosen = {index for name in names for index in members[name]}
    values = dataset.values
    if values is not None:
        values = {value: c if c == IGNORE else int(c in chosen) for value, c in values.items()}
    selected = replace(
        dataset,
        classes=(dataset.classes[0], " + ".join(dict.fromkeys(names))),
        values=values,
        regions={},
    )
    facts = tuple(
        replace(fact, voxels=_recount(selected, n) if len(dataset.cases[n].masks) > 1 else _united(fact, chosen))
        for n, fact in enumerate(dataset.facts)
    )
    return replace(selected, facts=facts)


def with_target(dataset: Dataset) -> Dataset:
    """Without the cases that show none of the classes."""
    names = " or ".join(dataset.classes[1:])
    shown = [any(fact.voxels[1:]) for fact in dataset.facts]
    if not any(shown):
        raise LabError(f"require_target: expected cases with {names}; {dataset.name} has none.")
    left = shown.count(False)
    if left == 0:
        return dataset
    note = f"{left} of {counted(len(shown), 'case')} show no {names} and were left out."
    return replace(_keep(dataset, shown), notes=(*dataset.notes, note))


def _keep(dataset: Dataset, kept: Sequence[bool]) -> Dataset:
    cases = tuple(case for case, keep in zip(dataset.cases, kept, strict=True) if keep)
    if not cases:
        raise LabError(f"exclude: expected cases to remain; {dataset.name} has no others.")
    facts = dataset.facts and tuple(fact for fact, keep in zip(dataset.facts, kept, strict=True) if keep)
    ids = {case.id for case in cases}
    splits = tuple(
        OfficialFold(*(tuple(name for name in part if name in ids) for part in (fold.train, fold.validation)))
        for fold in dataset.splits
    )
    return replace(dataset, cases=cases, facts=facts, splits=splits)


def _united(fact: Facts, chosen: set[int]) -> tuple[int, int]:
    inside = sum(fact.voxels[index] for index in chosen)
    return sum(fact.voxels) - inside, inside


def _recount(dataset: Dataset, n: int) -> tuple[int, ...]:
    """Masks of one case may overlap, and the target is seen wherever one of them marks it."""
    voxels, _ = count_classes(np.asarray(read_mask(dataset.cases[n], dataset)), 2)
    return voxels

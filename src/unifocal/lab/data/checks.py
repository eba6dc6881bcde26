"""Every file of a data set is looked at before anything starts, and all that is wrong is told at once.

Images are judged by their headers and sizes, pictures by their checksums; masks are read whole, since only that shows
a label that nobody knows. What is counted on the way is kept as `cases.Facts`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unifocal.lab.data.cases import Case, Dataset, Facts
from unifocal.lab.data.files import is_volume
from unifocal.lab.data.images import check_picture
from unifocal.lab.data.kinds import (
    LARGEST_CLASS,
    Mask,
    class_notes,
    labels_of_one,
    mixed_labels,
    soft_notes,
    value_notes,
)
from unifocal.lab.data.layouts.base import BINARY
from unifocal.lab.data.masks import count_classes, distinct_values, read_values, unite
from unifocal.lab.data.problems import short, some
from unifocal.lab.data.volumes import Header, read_header
from unifocal.lab.errors import LabError
from unifocal.lab.progress import Track, silent
from unifocal.lab.words import counted

SOFT_EDGES = 8  # a picture with as many positive values has soft edges; one with fewer has several labels

Look = Header | tuple[int, int]  # of a volume, or (height, width) of a picture


def check(dataset: Dataset, track: Track = silent) -> tuple[Dataset, list[str]]:
    """The data set with facts, notes and all its classes, and what is wrong with it."""
    problems = [*_repeated_ids(dataset.cases)]
    looks: dict[str, Look] = {}  # of the first mask of each case whose files are whole and fit
    for case in track(dataset.cases, "looking at files"):
        found, wrong = look_at(case, dataset)
        problems += wrong
        if not wrong:
            looks[case.id] = found[case.masks[0]]
    whole = [case for case in dataset.cases if case.id in looks]
    is_declared = bool(dataset.classes)
    if not is_declared:
        dataset, wrong = _find_classes(dataset, whole, track)
        if wrong:
            return dataset, problems + wrong
    facts = []
    masks: list[Mask] = []  # where they hold one lesion
    for case in track(whole, "reading masks"):
        try:
            stored = [read_values(path) for path in case.masks]
            mask = unite(case, dataset, stored)
        except LabError as error:
            problems.append(f"{case.id}: {error}")
            continue
        if dataset.values is None:
            masks += [Mask.of(case, path, values) for path, values in zip(case.masks, stored, strict=True)]
        voxels, ignored = count_classes(mask, len(dataset.classes))
        look = looks[case.id]
        where = (look.grid.spacing, look.grid.axes) if isinstance(look, Header) else (None, None)
        facts.append(Facts(mask.shape, voxels, ignored, *where))
    problems += labels_of_one(masks)
    notes = [*_notes(dataset.cases, facts), *soft_notes(masks), *value_notes(masks)]
    if not is_declared and not problems:
        notes += class_notes(dataset.cases, facts, dataset.classes)
    return replace(dataset, facts=tuple(facts), notes=(*dataset.notes, *notes)), problems


def _repeated_ids(cases: Sequence[Case]) -> list[str]:
    counts = Counter(case.id for case in cases)
    return [f"{n} images are called {name!r}: their names must differ" for name, n in counts.items() if n > 1]


def look_at(case: Case, dataset: Dataset) -> tuple[dict[Path, Look], list[str]]:
    """What the files of a case are, those that can be read, and what is wrong with them. Masks may be missing."""
    looks: dict[Path, Look] = {}
    problems = []
    for path in (*case.images, *case.masks):
        try:
            looks[path] = look_into(path)
        except LabError as error:
            problems.append(f"{case.id}: {error}")
    fitting = case.images if dataset.aligned else case.images[:1]
    for path in (*fitting, *case.masks):
        reference = (*case.images, *case.masks)[0]
        if path != reference and path in looks and reference in looks:
            differ = mismatch(reference, looks[reference], path, looks[path])
            if differ:
                problems.append(f"{case.id}: {differ}")
    volumes = [look for path in case.images if isinstance(look := looks.get(path), Header)]
    channels = sum(look.channels for look in volumes)
    is_whole = dataset.channels is None  # else some channels of a file are left out
    if is_whole and volumes and len(volumes) == len(case.images) and channels != len(dataset.sequences):
        names = ", ".join(dataset.sequences)
        problems.append(f"{case.id}: {channels} sequences in {some(map(short, case.images))}; expected {names}")
    return looks, problems


def look_into(path: Path) -> Look:
    """The header of a volume, or the size of a picture; a LabError if the file is broken."""
    return read_header(path) if is_volume(path) else check_picture(path)


def mismatch(first: Path, a: Look, second: Path, b: Look) -> str | None:
    """How the grids of two files differ, in words; None if they do not."""
    if isinstance(a, Header) and isinstance(b, Header):
        how = a.grid.mismatch(b.grid)
        return f"{short(second)} does not fit {short(first)}: {how}" if how else None
    if isinstance(a, Header) or isinstance(b, Header):
        return f"{short(second)} does not fit {short(first)}: one is a picture, one a volume"
    if a == b:
        return None
    one, other = (f"{look[1]}x{look[0]}" for look in (a, b))
    return f"sizes differ: {short(first)} is {one}, {short(second)} is {other}"


def _find_classes(dataset: Dataset, cases: Sequence[Case], track: Track) -> tuple[Dataset, list[str]]:
    """Decide by the rule of `layouts.plain`."""
    seen: set[int] = set()
    indices = True
    problems = []
    masks: list[Mask] = []
    for case in track(cases, "looking for classes"):
        for path in case.masks:
            try:
                values = distinct_values(read_values(path))
            except LabError as error:
                problems.append(f"{case.id}: {error}")
                continue
            is_index = np.isfinite(values) & (values >= 0) & (values == np.rint(values))
            if not is_index.all() or values.max() > LARGEST_CLASS:
                indices = False
                several = (values > 0).sum() >= 2
                soft = dataset.dimension == 2 and (values > 0).sum() >= SOFT_EDGES
                if (several and not soft) or not (values >= 0).all():  # NaN is not, either
                    shown = some((f"{value:g}" for value in values), SOFT_EDGES)
                    problems.append(
                        f"{case.id}: {short(path)} holds {shown}: expected one value for the lesion, or class indices "
                        f"0, 1, 2 and so on, up to {LARGEST_CLASS} (there is no label for voxels to leave out)"
                    )
                    continue
            masks.append(Mask(case.id, path, values[values > 0]))
            seen.update(int(value) for value in values[is_index] if value > 0)
    if not indices or len(seen) < 2:
        return replace(dataset, classes=BINARY), problems + mixed_labels(masks)
    classes = ("background", *(f"class {n}" for n in range(1, max(seen) + 1)))
    return replace(dataset, classes=classes, values={n: n for n in range(len(classes))}), problems


def _notes(cases: Sequence[Case], facts: Sequence[Facts]) -> list[str]:
    notes = []
    without = [case.id for case in cases if not case.images]
    if without:
        which = "no case has" if len(without) == len(cases) else f"{len(without)} of {len(cases)} cases have no"
        notes.append(f"{which} images, labels alone: enough to describe, not to train on.")
    spacings = Counter(tuple(round(length, 2) for length in fact.spacing) for fact in facts if fact.spacing)
    if len(spacings) > 1:
        common, n = spacings.most_common(1)[0]
        notes.append(
            f"{len(spacings)} different spacings; the most common, {' x '.join(f'{s:g}' for s in common)} mm, "
            f"in {n} of {counted(len(facts), 'case')}."
        )
    axes = Counter(fact.axes for fact in facts if fact.axes)
    if len(axes) > 1:
        where = ", ".join(f"{name} in {counted(n, 'case')}" for name, n in axes.most_common())
        notes.append(f"axes point differently: {where}.")
    return notes

"""A folder on disk becomes a data set: its layout found, its cases listed, every file checked.

The folder given may also be the parent or grandparent of the one that has the layout. Upper and lower case do not
matter. `list_dataset` opens no image; `read_dataset` looks at every file and counts every mask.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.checks import check
from unifocal.lab.data.files import PICTURES, VOLUMES, is_clutter, natural, subfolders
from unifocal.lab.data.groups import find_groups_file, with_groups
from unifocal.lab.data.layouts import LAYOUTS
from unifocal.lab.data.problems import SHOWN, listed, suggest
from unifocal.lab.data.splits import read_splits
from unifocal.lab.errors import LabError
from unifocal.lab.progress import Track, silent

DEPTH = 2  # levels below the folder given at which a data set is looked for


class NoLayout(LabError):
    """A folder that holds no data set."""


def read_dataset(
    root: str | Path,
    layout: str | None = None,
    groups_file: str | Path | None = None,
    splits_file: str | Path | None = None,
    track: Track = silent,
) -> Dataset:
    """Read a folder of images and masks.

    Args:
        root: the folder, or one above it.
        layout: a name of `layouts.LAYOUTS`; None finds it out.
        groups_file: CSV whose first column names the image (path relative to the folder, file name, or case
            id) and which has a column ``group``, ``patient`` or ``near_duplicate_group``; where several are
            there, cases that agree in any of them form one group. None takes ``groups.csv`` of the folder, if
            there is one.
        splits_file: JSON of published folds, in place of those that the layout finds; see `splits.read_splits`.
        track: shows how far the reading has come.

    Raises:
        LabError: the folder does not fit; the text lists what is wrong, up to 20 problems.
    """
    return check_dataset(*list_dataset(root, layout, groups_file, splits_file), track=track)


def list_dataset(
    root: str | Path,
    layout: str | None = None,
    groups_file: str | Path | None = None,
    splits_file: str | Path | None = None,
) -> tuple[Dataset, list[str]]:
    """The data set as far as names tell, and the problems seen so far; for `check_dataset`.

    `classes` is empty where only the masks can tell them.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise LabError(f"expected a folder of images and masks; {root} {what}.")
    check_layout(layout)
    layout, folder = _find_layout(root, layout)
    found = LAYOUTS[layout].read(folder)
    problems = list(found.problems)
    if not found.cases and not problems:
        problems.append(f"no image and mask ({', '.join((*PICTURES, *VOLUMES))}) in {folder}")
    cases = tuple(sorted(found.cases, key=lambda case: natural(case.id)))
    path = find_groups_file(root, folder, groups_file)
    if path is not None and not problems:
        cases = with_groups(cases, path, root, folder)
    splits, notes = found.splits, list(found.notes)
    if splits_file is not None:
        splits = read_splits(Path(splits_file).expanduser().resolve(), [case.id for case in cases], problems, notes)
    dataset = Dataset(
        name=root.name,
        layout=layout,
        root=root,
        cases=cases,
        classes=found.classes or (),
        values=found.values,
        dimension=found.dimension,
        sequences=found.sequences,
        aligned=found.aligned,
        regions=found.regions,
        look_alike=found.look_alike,
        splits=splits,
        notes=tuple(notes),
        groups_file=path,
    )
    return dataset, problems


def check_dataset(dataset: Dataset, problems: Sequence[str] = (), track: Track = silent) -> Dataset:
    """Look at every file of a listed data set; add what only the files tell, or tell every problem at once."""
    checked, found = check(dataset, track)
    if problems or found:
        headline = f"{dataset.root} (layout {dataset.layout}) cannot be used as it is"
        raise LabError(listed(headline, [*problems, *found]))
    return checked


def check_layout(name: str | None) -> None:
    """Raise a LabError that names the nearest layout, if this is none."""
    if name is not None and name not in LAYOUTS:
        raise LabError(f"expected a layout among {', '.join(LAYOUTS)}; got {name!r}.{suggest(name, LAYOUTS)}")


def contents(folder: Path) -> str:
    """What lies in a folder, by name."""
    inside = sorted(path.name for path in folder.iterdir() if not is_clutter(path))
    return ", ".join(inside[:SHOWN]) + (", ..." if len(inside) > SHOWN else "") if inside else "nothing"


def _find_layout(root: Path, layout: str | None) -> tuple[str, Path]:
    candidates = [layout] if layout else list(LAYOUTS)
    fits: list[tuple[str, Path]] = []
    level = [root]
    for _ in range(DEPTH + 1):
        found = {folder: _fitting(folder, candidates) for folder in level}
        fits += [(name, folder) for folder, names in found.items() for name in names]
        if found.get(root):
            break
        within = (deeper for folder, names in found.items() if not names for deeper in subfolders(folder))
        level = [folder for folder in within if os.access(folder, os.R_OK | os.X_OK)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        choices = "; ".join(f"{name} in {folder}" for name, folder in fits[:SHOWN])
        raise LabError(f"expected one data set; {root} holds {choices}. Name the folder, or the layout.")
    shown = contents(root)
    raise NoLayout(
        f"expected images and masks in one of the layouts {', '.join(candidates)}; {root} holds {shown}. "
        "The simplest layout: images/a.png and masks/a.png. `unifocal layouts` shows what each looks like."
    )


def _fitting(folder: Path, candidates: Sequence[str]) -> list[str]:
    fits = [name for name in candidates if LAYOUTS[name].is_here(folder)]
    meant = {name for fit in fits for name in LAYOUTS[fit].refines}
    return [name for name in fits if name not in meant]

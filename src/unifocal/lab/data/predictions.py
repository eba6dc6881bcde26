"""A folder of predicted label files, matched to the cases of a data set and checked before anything is measured.

A file is called by the id of its case, or as an image or a mask of the case; its format may be another. It holds the
values that the data set's own masks hold, or class indices; of masks that are grey pictures of one lesion, 0 and 1 or
0 and 255. All files of a folder are read in one way: the data set's own values if these fit the most files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.checks import look_into, mismatch
from unifocal.lab.data.files import PICTURES, VOLUMES, files_in, is_clutter, stem, suffix
from unifocal.lab.data.masks import distinct_values, read_values, to_classes
from unifocal.lab.data.problems import listed, short, some, suggest
from unifocal.lab.errors import LabError
from unifocal.lab.progress import Track, silent
from unifocal.lab.words import counted


@dataclass(frozen=True)
class Predictions:
    """A label file for every case, whole and on the grid of the truth.

    Attributes:
        folder: where they lie.
        files: the file of each case, by its id.
        values: the class of every value that a file may hold.
        reading: how values are read, in words.
    """

    folder: Path
    files: Mapping[str, Path]
    values: Mapping[int, int]
    reading: str

    def read(self, case: Case) -> NDArray[np.uint8]:
        """The predicted class indices, (H, W) or (i, j, k)."""
        path = self.files[case.id]
        return to_classes(read_values(path), self.values, path)


def list_files(folder: Path) -> list[Path]:
    """The label files in a folder; a LabError if there are none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise LabError(f"expected a folder of predictions; {folder} {what}.")
    found = files_in(folder)
    if not found:
        inside = some((path.name for path in folder.iterdir() if not is_clutter(path)), limit=4) or "nothing"
        kinds = ", ".join((*PICTURES, *VOLUMES))
        raise LabError(f"expected a label file ({kinds}) for each case; {folder} holds {inside}.")
    return found


def read_predictions(folder: Path, dataset: Dataset, track: Track = silent) -> Predictions:
    """Find and check the predictions in `folder`.

    Raises:
        LabError: the text lists all that is wrong: cases without a prediction, files of no case, files that are
            broken or on another grid, values that the data set does not know.
    """
    folder = folder.expanduser().resolve()
    files, problems = _matched(folder, dataset.cases)
    by_id = {case.id: case for case in dataset.cases}
    stored: dict[Path, NDArray[np.generic]] = {}
    for case, path in track(list(files.items()), "looking at predictions"):
        mask = by_id[case].masks[0]
        try:
            differ = mismatch(mask, look_into(mask), path, look_into(path))
            if differ:
                problems.append(f"{case}: {differ}")
            else:
                stored[path] = distinct_values(read_values(path))
        except LabError as error:
            problems.append(f"{case}: {error}")
    reading, values, strange = _chosen(_readings(dataset), stored)
    problems += strange
    if problems:
        raise LabError(listed(f"the predictions in {folder} do not fit {dataset.root}", problems))
    return Predictions(folder, files, values, reading)


def _matched(folder: Path, cases: Sequence[Case]) -> tuple[dict[str, Path], list[str]]:
    """The file of each case, as far as names tell, and what is wrong with the names."""
    found = list_files(folder)
    owners = _owners(cases)
    files: dict[str, list[Path]] = {case.id: [] for case in cases}
    nobodys, problems = [], []
    for path in found:
        owner = owners.get(stem(path), [])
        if len(owner) == 1:
            files[owner[0]].append(path)
        elif owner:
            example = f"{owner[0]}{suffix(path)}"
            problems.append(f"{path.name}: {len(owner)} cases have a file of this name; call it {example} or so")
        else:
            nobodys.append(path)
    missing = [case for case, paths in files.items() if not paths]
    if missing:
        problems.append(f"no prediction for {counted(len(missing), 'case')}: {some(missing)}")
    if nobodys:
        nearest = suggest(stem(nobodys[0]), missing)
        problems.append(f"{counted(len(nobodys), 'file')} of no case: {some(path.name for path in nobodys)}.{nearest}")
    several = {case: paths for case, paths in files.items() if len(paths) > 1}
    problems += [f"{case}: several predictions: {some(p.name for p in paths)}" for case, paths in several.items()]
    return {case: paths[0] for case, paths in files.items() if paths}, problems


def _owners(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The cases that a file name without its ending may mean; an id means its own case, whatever files are called."""
    owners: dict[str, list[str]] = {}
    for case in cases:
        for name in {stem(path) for path in (*case.images, *case.masks)}:
            owners.setdefault(name, []).append(case.id)
    return owners | {case.id: [case.id] for case in cases}


def _readings(dataset: Dataset) -> dict[str, Mapping[int, int]]:
    """The ways to read a value, the preferred one first."""
    if dataset.values is None:
        return {"0 and 1, or 0 and 255": {0: 0, 1: 1, 255: 1}}
    indices = {index: index for index in range(len(dataset.classes))}
    return {"values of the data set's own masks": dataset.values, "class indices": indices}


def _chosen(
    readings: Mapping[str, Mapping[int, int]], stored: Mapping[Path, NDArray[np.generic]]
) -> tuple[str, Mapping[int, int], list[str]]:
    """The reading that fits the most files, and which values of which files it does not know."""
    misfits = {
        name: {path: values[~np.isin(values, list(known))] for path, values in stored.items()}
        for name, known in readings.items()
    }
    best = min(readings, key=lambda name: sum(bool(len(strange)) for strange in misfits[name].values()))
    expected = " or ".join(f"{', '.join(map(str, sorted(known)))} ({name})" for name, known in readings.items())
    problems = [
        f"{short(path)} holds {some(f'{value:g}' for value in strange)}; expected {expected}"
        for path, strange in misfits[best].items()
        if len(strange)
    ]
    return best, readings[best], problems

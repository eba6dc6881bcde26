"""BraTS 2018 and 2020, glioma: four sequences on one grid, and the label 3 that does not exist.

Stored labels are 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing; here they become classes 1, 2, 3. The
challenge scores unions of them. Files may be .nii or .nii.gz. One case of 2020 (355) was published with a mask of
another name: the mask is whatever file of a case is no sequence.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import NIFTI, files_in, stem, subfolder, subfolders
from unifocal.lab.data.layouts.base import Found, Layout
from unifocal.lab.data.problems import some
from unifocal.lab.data.tables import read_column

SEQUENCES = ("t1", "t1ce", "t2", "flair")  # nnU-Net's order
CLASSES = ("background", "necrotic core", "oedema", "enhancing tumour")
VALUES = {0: 0, 1: 1, 2: 2, 4: 3}
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (1, 3)}
GRADES = ("HGG", "LGG")
NAME18 = re.compile(r"Brats1[789]_.+", re.IGNORECASE)  # 2017 to 2019 are stored alike
NAME20 = re.compile(r"BraTS20_Training_\d+", re.IGNORECASE)


def is_2018(folder: Path) -> bool:
    parts = [part for grade in GRADES if (part := subfolder(folder, (grade.lower(),)))]
    return any(NAME18.fullmatch(path.name) for part in parts for path in subfolders(part))


def is_2020(folder: Path) -> bool:
    return any(NAME20.fullmatch(path.name) for path in subfolders(folder))


def read_2018(folder: Path) -> Found:
    places = [
        (path, grade)
        for grade in GRADES
        if (part := subfolder(folder, (grade.lower(),)))
        for path in subfolders(part)
        if NAME18.fullmatch(path.name)
    ]
    return _read(places)


def read_2020(folder: Path) -> Found:
    grades = read_column(folder / "name_mapping.csv", "BraTS_2020_subject_ID", "Grade")
    places = [(path, grades.get(path.name)) for path in subfolders(folder) if NAME20.fullmatch(path.name)]
    return _read(places)


def _read(places: Sequence[tuple[Path, str | None]]) -> Found:
    cases, problems, renamed = [], [], []
    for folder, grade in places:
        files = {stem(path).lower(): path for path in files_in(folder, NIFTI)}
        images = {name: files.pop(f"{folder.name}_{name}".lower(), None) for name in SEQUENCES}
        missing = [name for name, path in images.items() if path is None]
        if missing:
            problems.append(f"{folder.name}: sequence missing: {', '.join(missing)}")
        mask = files.pop(f"{folder.name}_seg".lower(), None)
        if mask is None and len(files) == 1:
            mask = files.popitem()[1]
            renamed.append(f"{folder.name} ({mask.name})")
        if mask is None:
            problems.append(f"{folder.name}: no mask: expected {folder.name}_seg.nii or .nii.gz")
        elif not missing:
            cases.append(Case(folder.name, tuple(path for path in images.values() if path), (mask,), label=grade))
    notes = (f"the mask of {some(renamed)} has a name of its own.",) if renamed else ()
    return Found(cases, problems, 3, CLASSES, VALUES, SEQUENCES, regions=REGIONS, notes=notes)


BRATS18 = Layout(
    "brats18",
    "HGG/ and LGG/, each with Brats18_*/Brats18_*_{t1,t1ce,t2,flair,seg}.nii.gz (2017 and 2019 too)",
    is_2018,
    read_2018,
)
BRATS20 = Layout(
    "brats20",
    "BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz, name_mapping.csv",
    is_2020,
    read_2020,
)

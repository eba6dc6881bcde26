"""KiTS19, kidney and kidney tumour in CT: one folder for each case, slices stored first.

The papers leave out six cases, so 204 of the 210 with labels remain. The challenge's test cases (00210 to 00299)
have no labels. The images come from a script of the challenge: without them this is a set of labels alone.
"""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import NIFTI, files_in, stem, subfolders
from unifocal.lab.data.layouts.base import Found, Layout
from unifocal.lab.data.problems import some

NAME = re.compile(r"case_\d{5}")
EXCLUDED = frozenset(f"case_{number:05d}" for number in (15, 23, 37, 68, 125, 133))
CLASSES = ("background", "kidney", "tumour")


def is_here(folder: Path) -> bool:
    return any(NAME.fullmatch(path.name) and _files(path) for path in subfolders(folder))


def read(folder: Path) -> Found:
    cases, excluded, unlabelled = [], [], []
    for place in subfolders(folder):
        if not NAME.fullmatch(place.name):
            continue
        files = _files(place)
        if place.name in EXCLUDED:
            excluded.append(place.name)
        elif "segmentation" not in files:
            unlabelled.append(place.name)
        else:
            images = (files["imaging"],) if "imaging" in files else ()
            cases.append(Case(place.name, images, (files["segmentation"],)))
    notes = []
    if excluded:
        notes.append(f"left out as in the papers: {some(excluded)}.")
    if unlabelled:
        notes.append(f"no segmentation, left aside: {some(unlabelled)}.")
    values = {index: index for index in range(len(CLASSES))}
    return Found(cases, [], 3, CLASSES, values, ("ct",), notes=tuple(notes))


def _files(folder: Path) -> dict[str, Path]:
    return {name: path for path in files_in(folder, NIFTI) if (name := stem(path)) in ("imaging", "segmentation")}


LAYOUT = Layout("kits19", "case_00000/imaging.nii.gz and case_00000/segmentation.nii.gz", is_here, read)

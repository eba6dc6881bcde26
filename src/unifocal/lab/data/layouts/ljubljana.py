"""Lesions of multiple sclerosis, Ljubljana: one folder for each patient, in MNI space or as scanned."""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import NIFTI, files_in, subfolder, subfolders
from unifocal.lab.data.layouts.base import BINARY, Found, Layout

SEQUENCES = ("FLAIR", "T1", "T2")
PATIENT = re.compile(r"patient\d+", re.IGNORECASE)
TRUTH = re.compile(r"(GOLD_STANDARD.*|consensus_gt)\.nii(\.gz)?", re.IGNORECASE)
SPACES = ("mni", "coregistered_resampled")


def is_here(folder: Path) -> bool:
    return bool(_patients(folder)) or any(_patients(place) for place in _spaces(folder))


def _spaces(folder: Path) -> list[Path]:
    return [place for name in SPACES if (place := subfolder(folder, (name,)))]


def _patients(folder: Path) -> list[Path]:
    named = (path for path in subfolders(folder) if PATIENT.fullmatch(path.name))
    return [path for path in named if any(TRUTH.fullmatch(file.name) for file in files_in(path, NIFTI))]


def read(folder: Path) -> Found:
    """Of several spaces the first is read; name the folder of the other to have that."""
    spaces = [] if _patients(folder) else _spaces(folder)
    place, *others = spaces or [folder]
    cases, problems = [], []
    for patient in _patients(place):
        files = files_in(patient, NIFTI)
        mask = next(path for path in files if TRUTH.fullmatch(path.name))
        images = {name: path for name in SEQUENCES for path in files if path.name.upper().startswith(name)}
        missing = [name for name in SEQUENCES if name not in images]
        if images and missing:
            problems.append(f"{patient.name}: sequence missing: {', '.join(missing)}")
        else:
            cases.append(Case(patient.name, tuple(images.values()), (mask,), group=patient.name))
    notes = tuple(f"{place.name}/ is read; {other.name}/ is a set of its own: name it to read it." for other in others)
    return Found(cases, problems, 3, BINARY, {0: 0, 1: 1}, SEQUENCES, notes=notes)


LAYOUT = Layout(
    "ms-ljubljana",
    "MNI/patient01/{GOLD_STANDARD,FLAIR,T1,T2}_*.nii.gz; coregistered_resampled/patient01/consensus_gt.nii.gz",
    is_here,
    read,
)

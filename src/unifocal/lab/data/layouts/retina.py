"""Vessels of the retina: CHASE_DB1, DRIVE and HRF. The first observer is the truth.

CHASE_DB1 has two eyes of each participant, told by the name. The second observer (a measure of what a human reaches)
and the masks of the field of view are left aside: they are no truth of vessels.
"""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import pictures_in, subfolder
from unifocal.lab.data.layouts.base import BINARY, Found, Layout
from unifocal.lab.data.problems import short
from unifocal.lab.words import counted

CHASE = re.compile(r"Image_(?P<participant>\d+)[LR]", re.IGNORECASE)
TRUTH = ("1st_manual", "manual1")
PARTS = {"training": "train", "test": "test"}
CLASSES = (BINARY[0], "vessel")


def is_here(folder: Path) -> bool:
    return _is_chase(folder) or bool(_parts(folder))


def _is_chase(folder: Path) -> bool:
    return any(CHASE.fullmatch(path.stem) for path in pictures_in(folder))


def _parts(folder: Path) -> list[tuple[Path, str | None]]:
    """Folders with images and vessels: this one, or its training and test part."""
    if _has_vessels(folder):
        return [(folder, None)]
    named = [(place, part) for name, part in PARTS.items() if (place := subfolder(folder, (name,)))]
    return [(place, part) for place, part in named if _has_vessels(place)]


def _has_vessels(folder: Path) -> bool:
    return subfolder(folder, ("images",)) is not None and subfolder(folder, TRUTH) is not None


def read(folder: Path) -> Found:
    return _read_chase(folder) if _is_chase(folder) else _read_parts(folder)


def _read_chase(folder: Path) -> Found:
    files = {path.stem.lower(): path for path in pictures_in(folder)}
    cases, problems, second = [], [], 0
    for path in files.values():
        match = CHASE.fullmatch(path.stem)
        if match:
            truth = files.get(f"{path.stem.lower()}_1stho")
            second += f"{path.stem.lower()}_2ndho" in files
            if truth:
                cases.append(Case(path.stem, (path,), (truth,), group=match["participant"]))
            else:
                problems.append(f"image without mask: {short(path)} has no {path.stem}_1stHO")
    notes = (f"{counted(second, 'mask')} of the second observer left aside.",) if second else ()
    return Found(cases, problems, classes=CLASSES, look_alike=True, notes=notes)


def _read_parts(folder: Path) -> Found:
    """`21_training.tif` belongs to `21_manual1.gif`, `01_dr.JPG` to `01_dr.tif`."""
    cases: list[Case] = []
    problems: list[str] = []
    for place, part in _parts(folder):
        images, truth = subfolder(place, ("images",)), subfolder(place, TRUTH)
        files = {path.stem: path for path in (pictures_in(truth) if truth else [])}
        for path in pictures_in(images) if images else []:
            number = path.stem.split("_")[0]
            mask = files.pop(path.stem, None) or files.pop(f"{number}_manual1", None)
            if mask:
                cases.append(Case(path.stem, (path,), (mask,), part=part))
            else:
                problems.append(f"image without mask: {short(path)}")
        problems += [f"mask without image: {short(path)}" for path in files.values()]
    return Found(cases, problems, classes=CLASSES, look_alike=True)


LAYOUT = Layout(
    "retina",
    "Image_01L.jpg, Image_01L_1stHO.png (CHASE); {training,test}/{images,1st_manual}/ (DRIVE); images/, manual1/ (HRF)",
    is_here,
    read,
    refines=("plain",),
)

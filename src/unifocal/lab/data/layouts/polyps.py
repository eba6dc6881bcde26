"""Polyps in colonoscopy: Kvasir-SEG, CVC-ClinicDB, and the collection in which they are usually handed on.

Masks are binary, often JPEG. The collection (published with PraNet) has a training part of two sets and a test part
of five, numbered anew in each, so its cases are called ``Kvasir 1`` and the like.
"""

from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import pictures_in, subfolder, subfolders
from unifocal.lab.data.layouts import plain
from unifocal.lab.data.layouts.base import Found, Layout, pair

NAMES = ("kvasir", "cvc", "etis", "sessile")  # how the folders of single sets begin
PARTS = {"TrainDataset": "train", "TestDataset": "test"}


def is_here(folder: Path) -> bool:
    return _is_collection(folder) or _is_clinic(folder) or _is_single(folder)


def _is_collection(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in PARTS) and bool(_collected(folder))


def _is_clinic(folder: Path) -> bool:
    return bool(subfolder(folder, ("original",)) and subfolder(folder, ("ground truth",)))


def _is_single(folder: Path) -> bool:
    return folder.name.lower().startswith(NAMES) and plain.is_here(folder)


def _collected(folder: Path) -> list[tuple[Path, str, str]]:
    """(folder with images and masks, its part, prefix of its ids)."""
    found = []
    for name, part in PARTS.items():
        if (folder / name).is_dir():
            if plain.is_here(folder / name):
                found.append((folder / name, part, f"{part} "))
            found += [(place, part, f"{place.name} ") for place in subfolders(folder / name) if plain.is_here(place)]
    return found


def read(folder: Path) -> Found:
    if _is_clinic(folder):
        return Found(*_pairs(folder, ("original",), ("ground truth",)))
    if _is_single(folder):
        return Found(*_pairs(folder, plain.IMAGES, plain.MASKS))
    cases: list[Case] = []
    problems: list[str] = []
    for place, part, prefix in _collected(folder):
        found = _pairs(place, plain.IMAGES, plain.MASKS)
        cases += [Case(prefix + case.id, case.images, case.masks, part=part) for case in found[0]]
        problems += found[1]
    return Found(cases, problems)


def _pairs(folder: Path, images: tuple[str, ...], masks: tuple[str, ...]) -> tuple[list[Case], list[str]]:
    found = [pictures_in(part) if (part := subfolder(folder, names)) else [] for names in (images, masks)]
    return pair(found[0], found[1], plain.MASK)


LAYOUT = Layout(
    "polyps",
    "Kvasir-SEG/images and masks/; Original/ and Ground Truth/; TrainDataset/ and TestDataset/<set>/, images and masks",
    is_here,
    read,
    refines=("plain",),
)

"""BUSI, breast ultrasound: the folder names the diagnosis, and the masks lie beside their image."""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import pictures_in, subfolder
from unifocal.lab.data.layouts.base import Found, Layout, pair

DIAGNOSES = ("benign", "malignant", "normal")
MASK = re.compile(r"(?P<stem>.+)_mask(_\d+)?", re.IGNORECASE)


def is_here(folder: Path) -> bool:
    """A classification set may have the same folders; it is ours only with masks beside the images."""
    parts = [part for name in DIAGNOSES if (part := subfolder(folder, (name,)))]
    return any(MASK.fullmatch(path.stem) for part in parts for path in pictures_in(part))


def read(folder: Path) -> Found:
    cases: list[Case] = []
    problems: list[str] = []
    for name in DIAGNOSES:
        part = subfolder(folder, (name,))
        files = pictures_in(part) if part else []
        masks = [path for path in files if MASK.fullmatch(path.stem)]
        images = [path for path in files if not MASK.fullmatch(path.stem)]
        found = pair(images, masks, MASK, label=name)
        cases += found[0]
        problems += found[1]
    return Found(cases, problems)


LAYOUT = Layout(
    "busi",
    "benign/, malignant/, normal/ (any of them) with benign (1).png, benign (1)_mask.png, benign (1)_mask_1.png",
    is_here,
    read,
)

"""The layout of A-FL's own code: prostate MRI, divided into a training and a validation part."""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import stem, subfolder, volumes_in
from unifocal.lab.data.layouts.base import BINARY, Found, Layout

SEQUENCES = ("t2w", "adc", "hbv")
PARTS = {"train": "train", "valid": "validation"}
IMAGE = re.compile(rf"(?P<patient>.+)_(?P<sequence>{'|'.join(SEQUENCES)})", re.IGNORECASE)
MASK = re.compile(r"(?P<patient>.+)_gt", re.IGNORECASE)
VALUES = {0: 0, 255: 1} | dict.fromkeys(range(1, 6), 1)  # the lesion, or its ISUP grade


def is_here(folder: Path) -> bool:
    return all(subfolder(folder, (name,)) is not None for name in ("trainimage", "trainlabel"))


def read(folder: Path) -> Found:
    cases: list[Case] = []
    problems: list[str] = []
    for prefix, part in PARTS.items():
        images: dict[str, dict[str, Path]] = {}
        for path in _volumes(folder, f"{prefix}image"):
            if match := IMAGE.fullmatch(stem(path)):
                images.setdefault(match["patient"], {})[match["sequence"].lower()] = path
        masks = {m["patient"]: p for p in _volumes(folder, f"{prefix}label") if (m := MASK.fullmatch(stem(p)))}
        problems += [f"{part}: patient {name} has no label" for name in images if name not in masks]
        for patient, mask in masks.items():
            found = images.get(patient, {})
            missing = [name for name in SEQUENCES if name not in found]
            if missing:
                problems.append(f"{part}: patient {patient}: sequence missing: {', '.join(missing)}")
            else:
                scans = tuple(found[name] for name in SEQUENCES)
                cases.append(Case(patient, scans, (mask,), group=patient.split("_")[0], part=part))
    return Found(cases, problems, 3, BINARY, VALUES, SEQUENCES, aligned=False)


def _volumes(folder: Path, name: str) -> list[Path]:
    place = subfolder(folder, (name,))
    return volumes_in(place) if place else []


LAYOUT = Layout(
    "a-fl",
    "{Train,Valid}Image/<patient>_{t2w,adc,hbv}.nii.gz and {Train,Valid}Label/<patient>_gt.nii.gz",
    is_here,
    read,
)

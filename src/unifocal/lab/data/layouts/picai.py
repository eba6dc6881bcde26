"""PI-CAI, prostate cancer in MRI: .mha images, and the public folder of labels, alone or beside them.

A study counts if an expert has labelled it and T2W, ADC and the high b-value image are there. These have grids of
their own; labels lie on T2W's. A label is the ISUP grade of the lesion, and cancer from 1 on, as in the baseline of
the challenge; the experts' masks hold 0 and 2 to 5. Folds: a `splits.json` in the folder or in `splits/picai*/`.
"""

import re
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import NIFTI, files_in, stem, subfolder, subfolders
from unifocal.lab.data.layouts.base import Found, Layout
from unifocal.lab.data.problems import some
from unifocal.lab.data.splits import read_splits
from unifocal.lab.data.tables import read_column

SEQUENCES = ("t2w", "adc", "hbv")
CLASSES = ("background", "csPCa")
VALUES = {0: 0} | dict.fromkeys(range(1, 6), 1)
STUDY = re.compile(r"(?P<patient>\d+)_\d+")
SPLITS = ("splits.json", "splits/picai_nnunet/splits.json", "splits/picai/splits.json",
          "picai_baseline/splits/picai_nnunet/splits.json", "picai_baseline/splits/picai/splits.json")  # fmt: skip


def is_here(folder: Path) -> bool:
    return _labels(folder) is not None


def _labels(folder: Path) -> Path | None:
    """The experts' masks: `folder` is the public repository of labels itself, or holds it beside the images."""
    beside = ("picai_labels", "labels") if _image_folder(folder) else ()
    places = [folder / name / "csPCa_lesion_delineations" / "human_expert" / "resampled" for name in (".", *beside)]
    return next((place for place in places if place.is_dir()), None)


def _image_folder(folder: Path) -> Path | None:
    return subfolder(folder, ("images", "input"))


def read(folder: Path) -> Found:
    labels = _labels(folder)
    masks = {stem(path): path for path in (files_in(labels, NIFTI) if labels else []) if STUDY.fullmatch(stem(path))}
    images = _images(folder)
    outcome = _outcomes(labels.parents[2]) if labels else {}
    cases, problems = [], []
    for study, mask in masks.items():
        found = images.pop(study, {})
        missing = [name for name in SEQUENCES if name not in found]
        if found and missing:
            problems.append(f"{study}: sequence missing: {', '.join(missing)}")
            continue
        scans = tuple(found[name] for name in SEQUENCES) if found else ()
        cases.append(Case(study, scans, (mask,), group=study.split("_")[0], label=outcome.get(study)))
    notes = (f"no expert's mask, left aside: {some(images)}.",) if images else ()
    path = next((path for name in SPLITS if (path := folder / name).is_file()), None)
    splits = read_splits(path, [case.id for case in cases], problems) if path else ()
    return Found(
        cases, problems, 3, CLASSES, VALUES, SEQUENCES, aligned=False, splits=splits, notes=notes
    )  # fmt: skip


def _images(folder: Path) -> dict[str, dict[str, Path]]:
    """Study -> sequence -> file; patients have a folder each, and some keep those in the five folders of the zips."""
    found: dict[str, dict[str, Path]] = {}
    root = _image_folder(folder)
    if root is None:
        return found
    first = subfolders(root)
    for place in (root, *first, *(deeper for shallow in first for deeper in subfolders(shallow))):
        for path in files_in(place, (".mha", *NIFTI)):
            study, _, sequence = stem(path).rpartition("_")
            if sequence in SEQUENCES and STUDY.fullmatch(study):
                found.setdefault(study, {})[sequence] = path
    return found


def _outcomes(labels: Path) -> dict[str, str]:
    """Study -> csPCa or not, by the marksheet, which has patient and study in two columns."""
    sheet = labels / "clinical_information" / "marksheet.csv"
    patients = read_column(sheet, "study_id", "patient_id")
    outcomes = read_column(sheet, "study_id", "case_csPCa")
    words = {"yes": "csPCa", "no": "no csPCa"}
    return {
        f"{patients[study]}_{study}": words[answer.lower()]
        for study, answer in outcomes.items()
        if study in patients and answer.lower() in words
    }


LAYOUT = Layout(
    "picai",
    "images/10000/10000_1000000_{t2w,adc,hbv}.mha and picai_labels/csPCa_lesion_delineations/human_expert/resampled/",
    is_here,
    read,
    refines=("plain",),
)

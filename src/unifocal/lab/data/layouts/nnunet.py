"""nnU-Net version 2, raw: `dataset.json` names channels and labels, name first; a file for each channel.

Labels may be regions (a list of values) and one may be called `ignore`. The folds are those of `splits_final.json`,
which nnU-Net writes into the folder of preprocessed data: looked for beside, in `nnUNet_preprocessed`, and where the
environment variable of that name points to.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unifocal.lab.data.cases import IGNORE, Case
from unifocal.lab.data.files import PICTURES, files_in, stem, suffix
from unifocal.lab.data.layouts.base import Found, Layout
from unifocal.lab.data.problems import some
from unifocal.lab.data.splits import read_splits
from unifocal.lab.data.tables import mentions, read_fields
from unifocal.lab.errors import LabError

CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
EXPECTED = (
    'a dataset.json with "channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1} and '
    '"file_ending": ".nii.gz"'
)


def is_here(folder: Path) -> bool:
    return mentions(folder / "dataset.json", "channel_names")


def read(folder: Path) -> Found:
    path = folder / "dataset.json"
    content = read_fields(path, ("channel_names", "labels", "file_ending"), EXPECTED)
    ending = str(content["file_ending"]).lower()
    try:
        channels = tuple(str(content["channel_names"][key]) for key in sorted(content["channel_names"], key=int))
        classes, values, regions = read_labels(content["labels"])
        images, masks = _listed(folder, content, ending) if "dataset" in content else _found(folder, ending)
    except LabError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"expected {EXPECTED}; {path} has it otherwise ({error!r}).") from None
    pictures = ending in PICTURES
    # A colour picture is one file: its channels are named, but not stored apart.
    sequences = ("image",) if pictures and all(len(files) == 1 for files in images.values()) else channels
    cases, problems = [], []
    for name, mask in masks.items():
        files = images.pop(name, {})
        missing = [f"_{n:04d} ({sequence})" for n, sequence in enumerate(sequences) if n not in files]
        if missing:
            problems.append(f"{name}: sequence missing: {', '.join(missing)}")
        else:
            cases.append(Case(name, tuple(files[n] for n in range(len(sequences))), (mask,)))
    problems += [f"image without mask: imagesTr/{name}" for name in images]
    splits_file = find_splits(folder)
    splits = read_splits(splits_file, [case.id for case in cases], problems) if splits_file else ()
    return Found(
        cases, problems, 2 if pictures else 3, classes, values, sequences, regions=regions, splits=splits
    )  # fmt: skip


def read_labels(
    labels: Mapping[str, Any],
) -> tuple[tuple[str, ...], dict[int, int], dict[str, tuple[int, ...]]]:
    """(classes, stored value -> class, regions) of nnU-Net's labels: a value, or a list of them for a region."""
    values_of = {
        name: tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
        for name, value in labels.items()
    }
    ignored = {value for value in values_of.pop("ignore", ()) if value}
    stored = sorted({0, *(value for values in values_of.values() for value in values)} - ignored)
    position = {value: index for index, value in enumerate(stored)}
    single = {values[0]: name for name, values in values_of.items() if len(values) == 1}
    classes = tuple(single.get(value, f"label {value}" if value else "background") for value in stored)
    regions = {
        name: tuple(position[value] for value in values) for name, values in values_of.items() if len(values) > 1
    }
    return classes, position | dict.fromkeys(ignored, IGNORE), regions


def _found(folder: Path, ending: str) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    images: dict[str, dict[int, Path]] = {}
    for path in files_in(folder / "imagesTr", (ending,)) if (folder / "imagesTr").is_dir() else []:
        if match := CHANNEL.fullmatch(stem(path)):
            images.setdefault(match["case"], {})[int(match["channel"])] = path
    labels = folder / "labelsTr"
    return images, {stem(path): path for path in (files_in(labels, (ending,)) if labels.is_dir() else [])}


def _listed(folder: Path, content: Any, ending: str) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """`dataset` may list the files of every case, which then lie anywhere."""
    images: dict[str, dict[int, Path]] = {}
    masks: dict[str, Path] = {}
    for name, entry in content["dataset"].items():
        images[name] = {n: folder / path for n, path in enumerate(entry["images"])}
        masks[name] = folder / entry["label"]
    lost = [str(p) for name in masks for p in (*images[name].values(), masks[name]) if not p.is_file()]
    wrong = [str(p) for p in masks.values() if suffix(p) != ending]
    if lost or wrong:
        raise LabError(
            f"expected the files that {folder / 'dataset.json'} lists, ending in {ending}; "
            + "; ".join(f"{what}: {some(paths)}" for what, paths in (("not there", lost), ("other", wrong)) if paths)
        )
    return images, masks


def find_splits(folder: Path) -> Path | None:
    """`splits_final.json` of a raw data set, where nnU-Net keeps it."""
    places = [folder, folder.parent.parent / "nnUNet_preprocessed" / folder.name]
    if elsewhere := os.environ.get("nnUNet_preprocessed"):
        places.append(Path(elsewhere) / folder.name)
    return next((path for place in places if (path := place / "splits_final.json").is_file()), None)


LAYOUT = Layout(
    "nnunet",
    "dataset.json (channel_names, labels, file_ending), imagesTr/a_0000.nii.gz, a_0001.nii.gz and labelsTr/a.nii.gz",
    is_here,
    read,
)

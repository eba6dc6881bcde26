"""Medical Segmentation Decathlon: `dataset.json` lists the files and names the labels, number first.

Several sequences lie in one file of four axes. nnU-Net's first version wrote the same file, with a file for each
sequence (`_0000`, `_0001`, ...): that is read, too.
"""

from pathlib import Path, PurePosixPath

from unifocal.lab.data.cases import Case
from unifocal.lab.data.files import stem, suffix
from unifocal.lab.data.layouts.base import Found, Layout
from unifocal.lab.data.problems import some
from unifocal.lab.data.tables import mentions, read_fields
from unifocal.lab.errors import LabError

EXPECTED = (
    'a dataset.json with "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lesion"} and '
    '"training": [{"image": ..., "label": ...}]'
)


def is_here(folder: Path) -> bool:
    path = folder / "dataset.json"
    return mentions(path, "modality") and mentions(path, "training")


def read(folder: Path) -> Found:
    path = folder / "dataset.json"
    content = read_fields(path, ("modality", "labels", "training"), EXPECTED)
    try:
        sequences = tuple(content["modality"][key] for key in sorted(content["modality"], key=int))
        names = {0: "background"} | {int(value): str(name) for value, name in content["labels"].items()}
        entries = [(str(entry["image"]), str(entry["label"])) for entry in content["training"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"expected {EXPECTED}; {path} has it otherwise ({error!r}).") from None
    cases, problems = [], []
    for image, label in entries:
        mask = folder / PurePosixPath(label)
        images = _images(folder / PurePosixPath(image), len(sequences))
        missing = [path for path in (mask, *images) if not path.is_file()]
        if missing:
            problems.append(f"{stem(mask)}: listed in dataset.json and not there: {some(map(str, missing))}")
        else:
            cases.append(Case(stem(mask), images, (mask,)))
    values = {value: position for position, value in enumerate(sorted(names))}
    classes = tuple(names[value] for value in sorted(names))
    return Found(cases, problems, 3, classes, values, sequences or ("image",))


def _images(path: Path, sequences: int) -> tuple[Path, ...]:
    """The file, or those of nnU-Net's first version in its place."""
    first = path.with_name(f"{stem(path)}_0000{suffix(path)}")
    if path.is_file() or not first.is_file():
        return (path,)
    return tuple(path.with_name(f"{stem(path)}_{n:04d}{suffix(path)}") for n in range(sequences))


LAYOUT = Layout(
    "decathlon",
    "dataset.json (modality, labels, training), imagesTr/ and labelsTr/ with equal names",
    is_here,
    read,
)

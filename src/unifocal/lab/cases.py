"""What a data set is to the lab: a sorted tuple of cases, each an image and the masks that are its truth."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One image and its masks.

    Attributes:
        id: unique in the data set, readable and usable as a file name, e.g. ``benign (1)``.
        image: the image file.
        masks: the mask files, at least one; their union is the truth.
        group: the patient, or a near-duplicate group given by a groups file; None where unknown.
        label: the diagnosis where the folder names it (BUSI: benign, malignant, normal); folds are
            balanced by it.
    """

    id: str
    image: Path
    masks: tuple[Path, ...]
    group: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A folder of images and masks.

    Attributes:
        name: name of the folder.
        layout: ``busi``, ``bus2017`` or ``plain`` (see `layouts`).
        root: the folder itself, absolute.
        cases: sorted naturally by id: ``benign (2)`` before ``benign (10)``.
        classes: ``("background", "lesion")`` or more; the position is the value in
            the array of `images.read_mask`.
        groups_file: the file the groups came from; None if there is none.
    """

    name: str
    layout: str
    root: Path
    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    groups_file: Path | None = None

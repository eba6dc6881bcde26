"""What a data set is to the lab: a sorted tuple of cases, each some images and the masks that are their truth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

IGNORE = 255  # in arrays of class indices: a voxel that the data set itself leaves out


@dataclass(frozen=True)
class Case:
    """One patient's visit, or one picture: its images and its masks.

    Attributes:
        id: unique in the data set, readable and usable as a file name, e.g. ``benign (1)``.
        images: one file for each of `Dataset.sequences`, or one file that holds them all as channels; the first
            has the grid of the masks. None at all where only labels were published.
        masks: the mask files, at least one; their union is the truth.
        group: the patient, or a near-duplicate group given by a groups file; None where unknown.
        label: the diagnosis where the folder names it (BUSI: benign, malignant, normal); folds are
            balanced by it.
        part: ``train``, ``validation`` or ``test`` where the data set comes divided.
    """

    id: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    group: str | None = None
    label: str | None = None
    part: str | None = None

    @property
    def image(self) -> Path:
        """The first image, the only one of a picture."""
        return self.images[0]


@dataclass(frozen=True)
class Facts:
    """What the check of a case has counted, so that nobody opens its masks again for it.

    Attributes:
        shape: (height, width) of a picture, or the three axes of a volume in the order of its file.
        voxels: number of voxels of each class.
        ignored: number of voxels that the data set leaves out.
        spacing: of the three axes, in mm; None for pictures.
        axes: where the three axes point, as in ``LPS``; None for pictures.
    """

    shape: tuple[int, ...]
    voxels: tuple[int, ...]
    ignored: int = 0
    spacing: tuple[float, ...] | None = None
    axes: str | None = None


@dataclass(frozen=True)
class OfficialFold:
    """One fold of the division that was published with a data set, by case ids."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A folder of images and masks.

    Attributes:
        name: name of the folder.
        layout: how it is stored, by name (see `layouts`).
        root: the folder itself, absolute.
        cases: sorted naturally by id: ``benign (2)`` before ``benign (10)``.
        classes: ``("background", "lesion")`` or more; the position is the value in the array of `masks.read_mask`.
        values: the class of every value that a mask file may hold, `IGNORE` for voxels to leave out; None where
            masks are grey pictures of one lesion (see `masks.binarise`).
        dimension: 2 for pictures, 3 for volumes.
        sequences: names of the images of a case, the first being the reference.
        channels: which channels of a file that holds more than `sequences` these are; None if no file does.
        aligned: have all images of a case one grid? If not, only the first fits the mask.
        regions: unions of classes that the field reports, by name.
        look_alike: do all images show the same scene (a retina)? Then likeness is no sign of a duplicate, and only
            identical images count as one.
        splits: the published folds, if there are any.
        excluded: ids of cases that the user left out.
        facts: one for each case.
        notes: what a user should know, in sentences.
        groups_file: the file the groups came from; None if there is none.
    """

    name: str
    layout: str
    root: Path
    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    values: Mapping[int, int] | None = None
    dimension: int = 2
    sequences: tuple[str, ...] = ("image",)
    channels: tuple[int, ...] | None = None
    aligned: bool = True
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    look_alike: bool = False
    excluded: tuple[str, ...] = ()
    splits: tuple[OfficialFold, ...] = ()
    facts: tuple[Facts, ...] = ()
    notes: tuple[str, ...] = ()
    groups_file: Path | None = None

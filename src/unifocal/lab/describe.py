"""What the papers' Table 1 says of a data set, for any folder: cases, sizes, foreground, duplicates."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unifocal.lab.cases import Dataset
from unifocal.lab.duplicates import find_near_duplicates
from unifocal.lab.folds import merge_groups
from unifocal.lab.images import read_image, read_mask

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Spread:
    """Least, median and greatest of some numbers."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, numbers: ArrayLike) -> "Spread":
        values = np.asarray(numbers, float)
        return cls(float(values.min()), float(np.median(values)), float(values.max()))


@dataclass(frozen=True)
class ClassShare:
    """Percent of an image that a class covers, averaged per image; the spread is that of the images with it."""

    name: str
    present_in: int
    mean_of_all: float
    mean_where_present: float | None
    spread_where_present: Spread | None


@dataclass(frozen=True)
class AlikePair:
    """Two images that the lab takes for one; identical means pixel by pixel."""

    first: str
    second: str
    similarity: float
    identical: bool


@dataclass(frozen=True)
class Description:
    """The facts about one data set; percentages are of the image, averaged per image.

    Attributes:
        diagnoses: number of cases per diagnosis, where the folder names them.
        foreground: one entry per class but the background; with several classes a last one for all together.
        empty: cases without foreground.
        several_masks: cases with more than one mask file.
        alike: near-identical pairs, the most alike first.
        alike_groups: number of groups if alike images count as one.
        given_groups: number of groups by the groups file, cases it leaves open counted singly; None without one.
        fold_groups: number of groups that folds must not split, by both.
    """

    name: str
    layout: str
    root: str
    cases: int
    diagnoses: dict[str, int]
    classes: tuple[str, ...]
    width: Spread
    height: Spread
    foreground: tuple[ClassShare, ...]
    empty: int
    several_masks: int
    alike: tuple[AlikePair, ...]
    alike_groups: int
    groups_file: str | None
    given_groups: int | None
    fold_groups: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers, ready for JSON."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def table(self) -> "Table":
        """Return the description as a table for the terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(f"{self.name} ({self.layout})"), show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for name, value in self._lines():
            table.add_row(escape(name), escape(value))
        return table

    def _lines(self) -> list[tuple[str, str]]:
        diagnoses = ", ".join(f"{n} {name}" for name, n in self.diagnoses.items())
        identical = [pair for pair in self.alike if pair.identical]
        lines = [
            ("cases", f"{self.cases} ({diagnoses})" if diagnoses else str(self.cases)),
            *((f"{side} (min, median, max)", _numbers(getattr(self, side), "g")) for side in ("width", "height")),
        ]
        for share in self.foreground:
            lines.append((f"{share.name}, % of image", f"{share.mean_of_all:.2f} over all {self.cases} cases"))
            if share.mean_where_present is not None and share.spread_where_present is not None:
                spread = _numbers(share.spread_where_present, ".2f")
                text = (
                    f"{share.mean_where_present:.2f} over the {share.present_in} with it (min, median, max: {spread})"
                )
                lines.append(("", text))
        lines += [
            ("empty masks", str(self.empty)),
            ("several masks", str(self.several_masks)),
            ("near-identical pairs", f"{len(self.alike)}, {len(identical)} of them pixel by pixel"),
            *(("", f"{pair.first} = {pair.second}") for pair in identical),
            ("groups of alike images", str(self.alike_groups)),
            ("groups file", f"{self.groups_file}: {self.given_groups} groups" if self.groups_file else "none"),
            ("groups kept whole in folds", str(self.fold_groups)),
        ]
        return lines


def describe(dataset: Dataset) -> Description:
    """Read every image and mask once and return the facts about them."""
    shapes: list[tuple[int, ...]] = []
    pixels_of_class: list[NDArray[np.float64]] = []
    for case in dataset.cases:
        mask = read_mask(case, dataset)
        shapes.append(mask.shape)
        pixels_of_class.append(np.bincount(mask.ravel(), minlength=len(dataset.classes)) / mask.size)
    percent = 100 * np.stack(pixels_of_class)
    foreground = [_share(name, percent[:, n]) for n, name in enumerate(dataset.classes) if n > 0]
    if len(dataset.classes) > 2:
        foreground.append(_share("all classes", percent[:, 1:].sum(1)))

    found = find_near_duplicates(read_image(case) for case in dataset.cases)
    given = [case.group for case in dataset.cases]
    ids = [case.id for case in dataset.cases]
    heights, widths = zip(*shapes, strict=True)
    return Description(
        name=dataset.name,
        layout=dataset.layout,
        root=str(dataset.root),
        cases=len(dataset.cases),
        diagnoses=dict(Counter(case.label for case in dataset.cases if case.label is not None)),
        classes=dataset.classes,
        width=Spread.of(widths),
        height=Spread.of(heights),
        foreground=tuple(foreground),
        empty=int((percent[:, 1:].sum(1) == 0).sum()),
        several_masks=sum(len(case.masks) > 1 for case in dataset.cases),
        alike=tuple(AlikePair(ids[p.i], ids[p.j], p.similarity, p.identical) for p in found.pairs),
        alike_groups=len(set(found.groups)),
        groups_file=str(dataset.groups_file) if dataset.groups_file else None,
        given_groups=len(set(merge_groups(given))) if dataset.groups_file else None,
        fold_groups=len(set(merge_groups(given, found.groups))),
    )


def _share(name: str, percent: NDArray[np.float64]) -> ClassShare:
    present = percent[percent > 0]
    if len(present) == 0:
        return ClassShare(name, 0, 0.0, None, None)
    return ClassShare(name, len(present), float(percent.mean()), float(present.mean()), Spread.of(present))


def _numbers(spread: Spread, form: str) -> str:
    return ", ".join(format(number, form) for number in (spread.min, spread.median, spread.max))


def _plain(value: Any) -> Any:
    """Turn the tuples inside into lists, so that what is written as JSON reads back equal."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value

"""What the papers' Table 1 says of a data set, for any folder: cases, sizes, spacings, foreground, duplicates."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import NearDuplicates, duplicates_in
from unifocal.lab.data.folds import merge_groups
from unifocal.lab.data.images import read_image
from unifocal.lab.progress import Track, silent
from unifocal.lab.words import counted

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
    """Percent of an image that a class or region covers, averaged per image; the spread is that of images with it."""

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
        dimension: 2 for pictures, 3 for volumes.
        diagnoses: number of cases per diagnosis, where the folder or a table names them.
        parts: number of cases for training, validation and test, where the set comes divided.
        official_folds: number of published folds.
        sequences: names of the images of a case.
        without_images: cases that are labels alone.
        size: number of pixels or voxels along each axis, by its name.
        spacing: of volumes, in mm, by the name of the axis.
        axes: of volumes, where the axes point, with the number of cases.
        foreground: one entry per class but the background, then the named regions, or all classes together.
        ignored: cases with voxels that the set itself leaves out.
        empty: cases without foreground.
        several_masks: cases with more than one mask file.
        look_alike: do all images show the same scene, so that only identical ones count as alike?
        alike: near-identical pairs of pictures, the most alike first; not looked for in volumes.
        alike_groups: number of groups if alike images count as one.
        given_groups: number of patients or groups by file names or groups file, unknown ones counted singly; None
            where none are known.
        fold_groups: number of groups that folds must not split, by both.
        notes: what else a user should know.
    """

    name: str
    layout: str
    root: str
    dimension: int
    cases: int
    diagnoses: dict[str, int]
    parts: dict[str, int]
    official_folds: int
    classes: tuple[str, ...]
    sequences: tuple[str, ...]
    without_images: int
    size: dict[str, Spread]
    spacing: dict[str, Spread]
    axes: dict[str, int]
    foreground: tuple[ClassShare, ...]
    ignored: int
    empty: int
    several_masks: int
    look_alike: bool
    alike: tuple[AlikePair, ...]
    alike_groups: int
    groups_file: str | None
    given_groups: int | None
    fold_groups: int
    notes: tuple[str, ...]

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
        for name, value in self.lines():
            table.add_row(escape(name), escape(value))
        return table

    def lines(self) -> list[tuple[str, str]]:
        """What it says, as names and values."""
        diagnoses, parts = (", ".join(f"{n} {name}" for name, n in c.items()) for c in (self.diagnoses, self.parts))
        all_cases = counted(self.cases, "case")
        lines = [("cases", f"{self.cases} ({diagnoses})" if diagnoses else str(self.cases))]
        if parts:
            lines.append(("divided into", parts))
        if self.official_folds:
            lines.append(("official folds", str(self.official_folds)))
        if self.dimension == 3:
            held = f"; in {self.cases - self.without_images} of {all_cases}" if self.without_images else ""
            lines.append(("images", ", ".join(self.sequences) + held))
        for axis, sizes in self.size.items():
            spacing = f" voxels of {_numbers(self.spacing[axis], '.3g')} mm" if self.spacing else ""
            lines.append((f"{axis} (min, median, max)", _numbers(sizes, "g") + spacing))
        if self.axes:
            lines.append(("axes point to", ", ".join(f"{name} ({n})" for name, n in self.axes.items())))
        for share in self.foreground:
            of = "image" if self.dimension == 2 else "volume"
            name, mean = f"{share.name}, % of {of}", f"{_percent(share.mean_of_all)} over all {all_cases}"
            if share.mean_where_present is None or share.spread_where_present is None:
                lines.append((name, mean))
                continue
            numbers = ", ".join(map(_percent, dataclasses.astuple(share.spread_where_present)))
            spread = f"(min, median, max: {numbers})"
            if share.present_in == self.cases:
                lines.append((name, f"{mean} {spread}"))
            else:
                present = _percent(share.mean_where_present)
                lines += [(name, mean), ("", f"{present} over the {share.present_in} with it {spread}")]
        if self.ignored:
            lines.append(("voxels to ignore", f"in {counted(self.ignored, 'case')}"))
        lines += [("empty masks", str(self.empty)), ("several masks", str(self.several_masks))]
        if self.dimension == 2:
            identical = [pair for pair in self.alike if pair.identical]
            not_alike = "; all images look alike, so that only identical ones count" if self.look_alike else ""
            lines += [
                ("near-identical pairs", f"{len(self.alike)}, {len(identical)} of them pixel by pixel{not_alike}"),
                *(("", f"{pair.first} = {pair.second}") for pair in identical),
                ("groups of alike images", str(self.alike_groups)),
            ]
        if self.given_groups is not None and self.groups_file is None:
            lines.append(("patients, by file name", str(self.given_groups)))
        groups = counted(self.given_groups or 0, "group")
        lines += [
            ("groups file", f"{Path(self.groups_file).name}: {groups}" if self.groups_file else "none"),
            ("groups kept whole in folds", str(self.fold_groups)),
            *(("note", note) for note in self.notes),
        ]
        return lines


def describe(dataset: Dataset, track: Track = silent) -> Description:
    """Sum up what the check of a data set has counted; of pictures, every image is read for near-duplicates."""
    with_pictures = dataset.cases if dataset.dimension == 2 else ()
    images = (read_image(case) for case in track(with_pictures, "looking for near-duplicates"))
    return sum_up(dataset, duplicates_in(dataset, images))


def sum_up(dataset: Dataset, found: NearDuplicates) -> Description:
    """`describe` without a look at any file; `found` are the near-duplicates of pictures, and empty for volumes."""
    voxels = np.array([fact.voxels for fact in dataset.facts], float)
    percent = 100 * voxels / np.maximum(voxels.sum(1, keepdims=True), 1)
    foreground = [_share(name, percent[:, n]) for n, name in enumerate(dataset.classes) if n > 0]
    regions = dict(dataset.regions)
    if len(dataset.classes) > 2 and not regions:
        regions["all classes"] = tuple(range(1, len(dataset.classes)))
    foreground += [_share(name, percent[:, list(members)].sum(1)) for name, members in regions.items()]

    given = [case.group for case in dataset.cases]
    ids = [case.id for case in dataset.cases]
    names = ("height", "width") if dataset.dimension == 2 else tuple(f"axis {n}" for n in (1, 2, 3))
    shapes = zip(*(fact.shape for fact in dataset.facts), strict=True)
    spacings = zip(*(fact.spacing for fact in dataset.facts if fact.spacing), strict=True)
    groups = (given, found.groups) if dataset.dimension == 2 else (given,)
    return Description(
        name=dataset.name,
        layout=dataset.layout,
        root=str(dataset.root),
        dimension=dataset.dimension,
        cases=len(dataset.cases),
        diagnoses=dict(Counter(case.label for case in dataset.cases if case.label is not None)),
        parts=dict(Counter(case.part for case in dataset.cases if case.part is not None)),
        official_folds=len(dataset.splits),
        classes=dataset.classes,
        sequences=dataset.sequences,
        without_images=sum(not case.images for case in dataset.cases),
        size={name: Spread.of(sizes) for name, sizes in sorted(zip(names, shapes, strict=True), key=_width_first)},
        spacing={name: Spread.of(lengths) for name, lengths in zip(names, spacings, strict=False)},
        axes=dict(Counter(fact.axes for fact in dataset.facts if fact.axes).most_common()),
        foreground=tuple(foreground),
        ignored=sum(fact.ignored > 0 for fact in dataset.facts),
        empty=int((percent[:, 1:].sum(1) == 0).sum()),
        several_masks=sum(len(case.masks) > 1 for case in dataset.cases),
        look_alike=dataset.look_alike,
        alike=tuple(AlikePair(ids[p.i], ids[p.j], p.similarity, p.identical) for p in found.pairs),
        alike_groups=len(set(found.groups)),
        groups_file=str(dataset.groups_file) if dataset.groups_file else None,
        given_groups=len(set(merge_groups(given))) if any(given) else None,
        fold_groups=len(set(merge_groups(*groups))),
        notes=dataset.notes,
    )


def _width_first(named: tuple[str, Any]) -> bool:
    return named[0] == "height"


def _share(name: str, percent: NDArray[np.float64]) -> ClassShare:
    present = percent[percent > 0]
    if len(present) == 0:
        return ClassShare(name, 0, 0.0, None, None)
    return ClassShare(name, len(present), float(percent.mean()), float(present.mean()), Spread.of(present))


def _percent(number: float) -> str:
    """Two decimals, or two digits where these would say nothing."""
    return f"{number:.2f}" if number == 0 or number >= 0.1 else f"{number:.2g}"


def _numbers(spread: Spread, form: str) -> str:
    return ", ".join(format(number, form) for number in (spread.min, spread.median, spread.max))


def _plain(value: Any) -> Any:
    """Turn the tuples inside into lists, so that what is written as JSON reads back equal."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value

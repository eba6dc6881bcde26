"""A folder on disk becomes a data set: three layouts are known, and all problems are told at once.

``busi``      ``benign/``, ``malignant/``, ``normal/`` (any of them) with ``benign (1).png`` beside
              ``benign (1)_mask.png``, ``benign (1)_mask_1.png``, ...
``bus2017``   ``original/`` and ``GT/``, equal file names (BUS2017 dataset B).
``plain``     ``images/`` (or ``image/``) and ``masks/`` (or ``mask/``, ``labels/``, ``label/``); a mask has
              the stem of its image, alone or followed by ``_mask`` or ``_segmentation`` and perhaps by
              ``_1``, ``_2``, ...

Upper and lower case do not matter. The folder given may also be the parent of the one that has the layout.
Masks are binary in the first two layouts. In a plain folder they are class indices if all values of all masks
are whole numbers within 0..15 and more than one positive value occurs in the set; the classes are then named
"class 1", "class 2", ... Otherwise they are binary, in the way of `images.binarise`; a mask with a few other values
(such as 0, 85, 170, 255) is neither and refused.
"""

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unifocal.lab.cases import Case, Dataset
from unifocal.lab.errors import LabError
from unifocal.lab.folds import merge_groups
from unifocal.lab.images import check_file, read_mask_values

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
DIAGNOSES = ("benign", "malignant", "normal")
PLAIN_IMAGES = ("images", "image")
PLAIN_MASKS = ("masks", "mask", "labels", "label")
LARGEST_CLASS = 15
SOFT_EDGES = 8  # a mask with as many positive values has soft edges; one with fewer has several labels
GROUP_COLUMNS = ("group", "patient", "near_duplicate_group")
SHOWN = 20  # problems listed in one message


def read_dataset(root: str | Path, layout: str | None = None, groups_file: str | Path | None = None) -> Dataset:
    """Read a folder of images and masks.

    Args:
        root: the folder, or its parent.
        layout: ``busi``, ``bus2017`` or ``plain``; None finds it out.
        groups_file: CSV whose first column names the image (path relative to the folder, file name, or case
            id) and which has a column ``group``, ``patient`` or ``near_duplicate_group``; where several are
            there, cases that agree in any of them form one group. None takes ``groups.csv`` of the folder, if
            there is one.

    Raises:
        LabError: the folder does not fit; the text lists what is wrong, up to 20 problems.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise LabError(f"expected a folder of images and masks; {root} {what}.")
    if layout is not None and layout not in LAYOUTS:
        raise LabError(f"expected a layout among {', '.join(LAYOUTS)}; got {layout!r}.{_suggest(layout, LAYOUTS)}")
    layout, folder = _find_layout(root, layout)
    found = LAYOUTS[layout](folder)
    problems = [*found.problems, *_repeated_ids(found.cases), *_file_problems(found.cases)]
    if not found.cases and not problems:
        problems.append(f"no image ({', '.join(SUFFIXES)}) in {folder}")
    if problems:
        raise LabError(_listed(f"{root} (layout {layout}) cannot be used as it is", problems))
    cases = tuple(sorted(found.cases, key=lambda case: _natural(case.id)))
    classes = _find_classes(cases) if layout == "plain" else ("background", "lesion")
    path = _find_groups_file(root, folder, groups_file)
    if path is not None:
        cases = _with_groups(cases, path, root, folder)
    return Dataset(root.name, layout, root, cases, classes, path)


@dataclass(frozen=True)
class _Found:
    cases: list[Case]
    problems: list[str]


def _read_busi(folder: Path) -> _Found:
    cases: list[Case] = []
    problems: list[str] = []
    for name in DIAGNOSES:
        part = _subfolder(folder, (name,))
        if part is None:
            continue
        files = _image_files(part)
        masks = [path for path in files if _BUSI_MASK.fullmatch(path.stem)]
        images = [path for path in files if not _BUSI_MASK.fullmatch(path.stem)]
        found = _pair(images, masks, _BUSI_MASK, label=name)
        cases += found.cases
        problems += found.problems
    return _Found(cases, problems)


def _read_bus2017(folder: Path) -> _Found:
    images, masks = _subfolder(folder, ("original",)), _subfolder(folder, ("gt",))
    assert images is not None and masks is not None  # the layout was recognised by them
    return _pair(_image_files(images), _image_files(masks), _NO_SUFFIX)


def _read_plain(folder: Path) -> _Found:
    images, masks = _subfolder(folder, PLAIN_IMAGES), _subfolder(folder, PLAIN_MASKS)
    assert images is not None and masks is not None
    return _pair(_image_files(images), _image_files(masks), _PLAIN_MASK)


LAYOUTS = {"busi": _read_busi, "bus2017": _read_bus2017, "plain": _read_plain}

_BUSI_MASK = re.compile(r"(?P<stem>.+)_mask(_\d+)?", re.IGNORECASE)
_PLAIN_MASK = re.compile(r"(?P<stem>.+?)(_(mask|segmentation)(_\d+)?)?", re.IGNORECASE)
_NO_SUFFIX = re.compile(r"(?P<stem>.+)")


def _has_layout(folder: Path, layout: str) -> bool:
    if layout == "busi":
        parts = [part for name in DIAGNOSES if (part := _subfolder(folder, (name,)))]
        # A classification set may have the same folders; it is ours only with masks beside the images.
        return any(_BUSI_MASK.fullmatch(path.stem) for part in parts for path in _image_files(part))
    names = {"bus2017": (("original",), ("gt",)), "plain": (PLAIN_IMAGES, PLAIN_MASKS)}[layout]
    return all(_subfolder(folder, alternatives) is not None for alternatives in names)


def _find_layout(root: Path, layout: str | None) -> tuple[str, Path]:
    candidates = [layout] if layout else list(LAYOUTS)
    for folders in ([root], _subfolders(root)):
        fits = [(name, folder) for folder in folders for name in candidates if _has_layout(folder, name)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            choices = "; ".join(f"{name} in {folder}" for name, folder in fits)
            raise LabError(f"expected one data set; {root} holds {choices}. Name the folder, or the layout.")
    inside = sorted(path.name for path in root.iterdir() if not _is_clutter(path))
    shown = ", ".join(inside[:SHOWN]) + (", ..." if len(inside) > SHOWN else "") if inside else "nothing"
    raise LabError(
        f"expected images and masks in one of the layouts {', '.join(candidates)}; {root} holds {shown}. "
        "The simplest layout: images/a.png and masks/a.png."
    )


def _pair(images: list[Path], masks: list[Path], mask_name: re.Pattern[str], label: str | None = None) -> _Found:
    """Give every image its masks: those of its stem, or of its stem and a suffix `mask_name` allows."""
    stems = {path.stem for path in images}
    owned: dict[str, list[Path]] = {}
    for path in masks:
        match = mask_name.fullmatch(path.stem)
        stem = path.stem if match is None or path.stem in stems else match["stem"]
        owned.setdefault(stem, []).append(path)
    problems = [f"image without mask: {_short(path)}" for path in images if path.stem not in owned]
    problems += [f"mask without image: {_short(p)}" for stem in owned if stem not in stems for p in owned[stem]]
    cases = [
        Case(
            path.stem,
            path,
            tuple(sorted(owned[path.stem], key=lambda mask: _natural(mask.stem))),
            None,
            label,
        )
        for path in images
        if path.stem in owned
    ]
    return _Found(cases, problems)


def _repeated_ids(cases: list[Case]) -> list[str]:
    counts = Counter(case.id for case in cases)
    return [f"{n} images are called {name!r}: their names must differ" for name, n in counts.items() if n > 1]


def _file_problems(cases: list[Case]) -> list[str]:
    problems = []
    for case in cases:
        sizes: dict[Path, tuple[int, int]] = {}
        for path in (case.image, *case.masks):
            try:
                sizes[path] = check_file(path)
            except LabError as error:
                problems.append(str(error))
        if case.image not in sizes:
            continue
        for path in case.masks:
            if path in sizes and sizes[path] != sizes[case.image]:
                image, mask = ("x".join(map(str, sizes[p])) for p in (case.image, path))
                problems.append(f"sizes differ: {_short(case.image)} is {image}, {_short(path)} is {mask}")
    return problems


def _find_classes(cases: tuple[Case, ...]) -> tuple[str, ...]:
    """Decide by the rule of the module's docstring."""
    seen: set[int] = set()
    indices = True
    problems = []
    for case in cases:
        for path in case.masks:
            values = np.unique(read_mask_values(path))
            if values.max() > LARGEST_CLASS or values.min() < 0 or (values != values.astype(int)).any():
                indices = False
                if 2 <= (values > 0).sum() < SOFT_EDGES:
                    problems.append(f"{_short(path)} holds {', '.join(f'{value:g}' for value in values)}")
            seen.update(int(value) for value in values if value > 0)
    if problems:
        headline = (
            "expected masks with one value for the lesion, or class indices 0, 1, 2, ... (there is no label for "
            "voxels to leave out); store other values as indices"
        )
        raise LabError(_listed(headline, problems))
    if not indices or len(seen) < 2:
        return ("background", "lesion")
    return ("background", *(f"class {n}" for n in range(1, max(seen) + 1)))


def _find_groups_file(root: Path, folder: Path, given: str | Path | None) -> Path | None:
    if given is not None:
        path = Path(given).expanduser().resolve()
        if not path.is_file():
            raise LabError(f"expected a groups file (CSV); {path} does not exist.")
        return path
    return next((path for place in (root, folder) if (path := place / "groups.csv").is_file()), None)


def _with_groups(cases: tuple[Case, ...], path: Path, root: Path, folder: Path) -> tuple[Case, ...]:
    """Return the cases with the groups of the file; an empty cell leaves the group unknown."""
    names = {name: case.id for case in cases for name in _names_of(case, root, folder)}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        delimiter = "," if "," in text.partition("\n")[0] else ";"  # what spreadsheets write in half of Europe
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header, *rows = [row for row in lines if any(cell.strip() for cell in row)] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabError(f"expected a CSV file in UTF-8; {path} cannot be read ({error}).") from error
    columns = [name.strip().lower() for name in header]
    wanted = [columns.index(name) for name in GROUP_COLUMNS if name in columns[1:]]
    if not wanted:
        spelling = next((s for name in columns[1:] if (s := _suggest(name, GROUP_COLUMNS))), "")
        raise LabError(
            f"expected a column {' or '.join(GROUP_COLUMNS)} after the image's name; "
            f"{path} has the columns {', '.join(header) or '(none)'}.{spelling}"
        )
    problems, unknown = [], []
    labels: dict[str, list[str | None]] = {}
    for number, row in enumerate(rows, 2):
        image = row[0].strip().replace("\\", "/").removeprefix("./")
        if image not in names:
            unknown.append(f"row {number}: no case {image!r} in the folder.{_suggest(image, names)}")
        elif names[image] in labels:
            problems.append(f"row {number}: {image!r} is listed twice")
        else:
            labels[names[image]] = [(row[c].strip() or None) if c < len(row) else None for c in wanted]
    missing = [f"no row for the case {case.id!r}" for case in cases if case.id not in labels]
    if missing:  # otherwise rows too many are only those of a larger set
        problems += unknown + missing
    if problems:
        raise LabError(_listed(f"{path} does not fit the images in {folder}", problems))
    table = [labels[case.id] for case in cases]
    if len(wanted) == 1:
        return tuple(replace(case, group=row[0]) for case, row in zip(cases, table, strict=True))
    joined = merge_groups(*zip(*table, strict=True))
    return tuple(
        replace(case, group=str(group) if any(row) else None)
        for case, group, row in zip(cases, joined, table, strict=True)
    )


def _names_of(case: Case, root: Path, folder: Path) -> list[str]:
    """Return the names by which a groups file may call a case, the loosest first: later ones win a clash."""
    relative = [case.image.relative_to(place).as_posix() for place in dict.fromkeys((root, folder))]
    return [case.id, case.image.name, *relative]


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    by_name = {path.name.lower(): path for path in _subfolders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_clutter(path))


def _image_files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not _is_clutter(path))
    return sorted((path for path in files if path.is_file()), key=lambda path: _natural(path.name))


def _is_clutter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in ("__macosx", "thumbs.db", "desktop.ini")


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits by their value, and the name itself where that leaves a tie (01 and 1)."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], name


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _suggest(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _listed(headline: str, problems: list[str]) -> str:
    n = len(problems)
    lines = [f"{headline}: {n} problem{'s' if n > 1 else ''}.", *(f"  {text}" for text in problems[:SHOWN])]
    if n > SHOWN:
        lines.append(f"  ... and {n - SHOWN} more")
    return "\n".join(lines)

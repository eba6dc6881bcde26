"""A groups file names the patient of every image, so that folds never split one."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from unifocal.lab.data.cases import Case
from unifocal.lab.data.folds import merge_groups
from unifocal.lab.data.problems import listed, suggest
from unifocal.lab.errors import LabError

COLUMNS = ("group", "patient", "near_duplicate_group")


def find_groups_file(root: Path, folder: Path, given: str | Path | None) -> Path | None:
    if given is not None:
        path = Path(given).expanduser().resolve()
        if not path.is_file():
            raise LabError(f"expected a groups file (CSV); {path} does not exist.")
        return path
    return next((path for place in (root, folder) if (path := place / "groups.csv").is_file()), None)


def with_groups(cases: tuple[Case, ...], path: Path, root: Path, folder: Path) -> tuple[Case, ...]:
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
    wanted = [columns.index(name) for name in COLUMNS if name in columns[1:]]
    if not wanted:
        spelling = next((s for name in columns[1:] if (s := suggest(name, COLUMNS))), "")
        raise LabError(
            f"expected a column {' or '.join(COLUMNS)} after the image's name; "
            f"{path} has the columns {', '.join(header) or '(none)'}.{spelling}"
        )
    problems, unknown = [], []
    labels: dict[str, list[str | None]] = {}
    for number, row in enumerate(rows, 2):
        image = row[0].strip().replace("\\", "/").removeprefix("./")
        if image not in names:
            unknown.append(f"row {number}: no case {image!r} in the folder.{suggest(image, names)}")
        elif names[image] in labels:
            problems.append(f"row {number}: {image!r} is listed twice")
        else:
            labels[names[image]] = [(row[c].strip() or None) if c < len(row) else None for c in wanted]
    missing = [f"no row for the case {case.id!r}" for case in cases if case.id not in labels]
    if missing:  # otherwise rows too many are only those of a larger set
        problems += unknown + missing
    if problems:
        raise LabError(listed(f"{path} does not fit the images in {folder}", problems))
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
    file = (*case.images, *case.masks)[0]
    relative = [file.relative_to(place).as_posix() for place in (folder, root) if file.is_relative_to(place)]
    return [case.id, file.name, *reversed(relative)]

"""Folders as people keep them: case does not matter, clutter is passed over, 2 comes before 10."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".gif")
NIFTI = (".nii", ".nii.gz")
VOLUMES = (*NIFTI, ".mha", ".mhd", ".nrrd")
FORBIDDEN = r'[/\\:*?"<>|%\x00-\x1f]'  # in the names of files, somewhere; and the sign that stands for them
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")


def subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the subfolders that are called so, in lower case."""
    by_name = {path.name.lower(): path for path in subfolders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def subfolders(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if not is_clutter(path) and path.is_dir())
    return sorted(found, key=lambda path: natural(path.name))


def files_in(folder: Path, suffixes: Sequence[str] = (*PICTURES, *VOLUMES)) -> list[Path]:
    """Its files that end in one of `suffixes`, in natural order."""
    found = (path for path in folder.iterdir() if suffix(path) in suffixes and not is_clutter(path))
    # A link that leads nowhere stays in: whoever opens it can say so.
    return sorted((path for path in found if not path.is_dir()), key=lambda path: natural(path.name))


def pictures_in(folder: Path) -> list[Path]:
    return files_in(folder, PICTURES)


def volumes_in(folder: Path) -> list[Path]:
    return files_in(folder, VOLUMES)


def suffix(path: Path) -> str:
    """In lower case, and ``.nii.gz`` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem(path: Path) -> str:
    """The name without `suffix`."""
    return path.name[: len(path.name) - len(suffix(path))]


def file_name(case: str) -> str:
    """The start of a file name for the id of a case: no id can leave its folder, and no two share a name."""
    name = re.sub(FORBIDDEN, lambda found: quote(found[0], safe=""), case)
    return name.replace(".", "%2E", 1) if name.startswith(".") else name


def is_volume(path: Path) -> bool:
    return suffix(path) in VOLUMES


def is_clutter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in CLUTTER


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits by their value, and the name itself where that leaves a tie (01 and 1)."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], name

"""What files hold, by SHA-256, read once and remembered for as long as nobody touches them."""

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.sizes import files_of
from unifocal.lab.errors import LabError
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import fingerprint
from unifocal.lab.storage import read_json, write_text

MEMORY = "contents.json"  # in the folder of prepared cases
RECENT = 2.0  # seconds: the coarsest clock of a file system; a file changed since might keep its times

Digests = dict[Path, str]


class Contents:
    """The SHA-256 of files, kept in a JSON file with the size and the times by which a change is noticed.

    Use as a context, which writes the JSON file in the end. It is a memory, not a record: where it is missing or
    damaged, or another process has written it meanwhile, files are read again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MEMORY
        self.known = _read(self.path)
        self.new: dict[str, list[int | str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.new:
            with suppress(OSError):  # what cannot be remembered is read again
                write_text(self.path, json.dumps(_read(self.path) | self.new, indent=0) + "\n")

    def digest(self, path: Path, own: bool = False) -> str:
        """The SHA-256 of a file; `own` files are written by the lab alone, and trusted at once."""
        status = path.stat()
        stamp: list[int | str] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self.known.get(str(path))
        if known is not None and known[:3] == stamp:
            return str(known[3])
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if own or time.time() - max(status.st_mtime, status.st_ctime) > RECENT:
            self.known[str(path)] = self.new[str(path)] = [*stamp, found]
        return found

    def digests(self, case: Case) -> Digests:
        """Of the files of a case: images, then masks. With a header counts the file of its voxels."""
        found = {}
        try:
            for path in (*case.images, *case.masks):
                parts = [self.digest(part) for part in files_of(path)]
                found[path] = parts[0] if len(parts) == 1 else fingerprint(parts)
        except FileNotFoundError as error:
            raise LabError(f"expected the files of case {case.id!r}; {error.filename} is gone.") from None
        return found


def file_digests(dataset: Dataset, folder: Path, track: Track = silent) -> Digests:
    """SHA-256 of every image and mask; `folder` is that of the prepared cases, which remembers them.

    After `prepare_all` in the same folder no file needs to be read again, nor the other way round.
    """
    found: Digests = {}
    with Contents(folder) as contents:
        for case in track(dataset.cases, "reading files"):
            found |= contents.digests(case)
    return found


def data_fingerprint(dataset: Dataset, digests: Mapping[Path, str]) -> str:
    """Hash of what images and masks hold and mean, case by case: the same data anywhere, under any file names."""
    cases = [
        [case.id, [digests[path] for path in case.images], [digests[path] for path in case.masks]]
        for case in dataset.cases
    ]
    return fingerprint([meaning(dataset), cases])


def meaning(dataset: Dataset) -> dict[str, object]:
    """What stored values and channels mean, which changes image and truth as much as the files do."""
    return {
        "dimension": dataset.dimension,
        "classes": list(dataset.classes),
        "values": None if dataset.values is None else sorted([v, c] for v, c in dataset.values.items()),
        "sequences": list(dataset.sequences),
        "channels": dataset.channels and list(dataset.channels),
        "aligned": dataset.aligned,
    }


def _read(path: Path) -> dict[str, list[int | str]]:
    try:
        known = read_json(path)
    except (FileNotFoundError, LabError):
        return {}
    return known if isinstance(known, dict) else {}

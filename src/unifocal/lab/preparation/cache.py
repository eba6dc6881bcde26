"""Prepared cases on disk, read by memory mapping: an epoch copies what it needs and never waits for a decoder.

    <folder>/contents.json                   SHA-256 of files, and when they were last touched
    <folder>/cases/<case>-<key>.image.npy    (channels, *spatial) float32
    <folder>/cases/<case>-<key>.labels.npy   (*spatial) uint8
    <folder>/cases/<case>-<key>.foreground.npy    (m, axes) int64
    <folder>/cases/<case>-<key>.json         placement, and SHA-256 of the three; written when they are whole
    <folder>/<key>/index.json                the cases of a set, in order; written when all are there

The key of a case is a hash of what its files hold, of what stored values mean and of every setting that matters, so
nothing is ever written over with something else: other settings have other files, and processes that prepare the same
case write the same. The key of a set is a hash of its cases. A file that was cut short or damaged is made anew.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.files import file_name
from unifocal.lab.data.problems import listed
from unifocal.lab.errors import LabError
from unifocal.lab.fitting import check_preparation
from unifocal.lab.preparation.contents import Contents, meaning
from unifocal.lab.preparation.foreground import sample_foreground
from unifocal.lab.preparation.placement import Placement, wanted_size
from unifocal.lab.preparation.steps import Prepared, prepare_case
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import fingerprint
from unifocal.lab.settings import Settings
from unifocal.lab.storage import read_json, write_json, write_with

FORMAT = 2  # raise it when cases come out differently than before
CASES = "cases"
INDEX = "index.json"
KEY = 16  # characters of a hash in names
NAME = 80  # of an id
IMAGE, LABELS, FOREGROUND, RECORD = "image.npy", "labels.npy", "foreground.npy", "json"
PARTS = (IMAGE, LABELS, FOREGROUND)


class PreparedSet:
    """The cases of a data set on the training grid, by their position in it; pickled as its folder alone.

    Attributes:
        folder: where its index lies.
        dimension: 2 for pictures, 3 for volumes.
        channels: of each image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        index = read_json(self.folder / INDEX)
        self.dimension: int = index["dimension"]
        self.channels: int = index["channels"]
        self._cases: list[dict[str, Any] | None] = index["cases"]

    def __reduce__(self) -> tuple[Callable[[Path], "PreparedSet"], tuple[Path]]:
        return open_prepared, (self.folder,)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, i: int) -> Prepared:
        """A case whose tensors lie on disk; changing them changes nothing there."""
        return Prepared(*(torch.from_numpy(self._load(i, part, "c")) for part in (IMAGE, LABELS)))

    def foreground(self, i: int) -> NDArray[np.int64]:
        """Positions (m, dimension) of voxels of the foreground, at most some thousands of each class."""
        return self._load(i, FOREGROUND)

    def placement(self, i: int) -> Placement:
        """How the case came onto the training grid."""
        return Placement.from_json(self._case(i)["placement"])

    def _case(self, i: int) -> dict[str, Any]:
        case = self._cases[i]
        if case is None:
            raise LabError(f"expected a prepared case; number {i} is none of those prepared in {self.folder}.")
        return case

    def _load(self, i: int, part: str, mapped: Literal["c"] | None = None) -> NDArray[Any]:
        path = _file(self.folder.parent / CASES / self._case(i)["name"], part)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode=mapped)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise LabError(
                f"expected a prepared case; {path} is missing or damaged ({error}). "
                "The same command, begun again, makes it anew."
            ) from error
        return array


def open_prepared(folder: Path) -> PreparedSet:
    """Open what `prepare_all` has made, by `PreparedSet.folder`."""
    try:
        return PreparedSet(folder)
    except FileNotFoundError:
        raise LabError(f"expected prepared cases; there is no {INDEX} in {folder}.") from None


def prepare_all(
    dataset: Dataset, settings: Settings, folder: Path, track: Track = silent, only: Sequence[int] | None = None
) -> PreparedSet:
    """Prepare every case below `folder`, or `only` those at some positions, and open them.

    What is there and whole is kept, so that an interrupted call goes on and a second one is over at once. Several
    processes may do this at the same time. Each file of the data set is read once: for its hash and, from the memory
    of the system, for its content.

    Raises LabError if settings and data do not fit, or with every case that cannot be prepared, after looking at all;
    and OSError with the name of the file where the disk is full.
    """
    check_preparation(dataset, settings)
    positions = list(range(len(dataset.cases)) if only is None else only)
    cases: list[dict[str, Any] | None] = [None] * len(dataset.cases)
    broken: dict[str, str] = {}
    with Contents(folder) as contents:
        for i in track(positions, "preparing cases"):
            case = dataset.cases[i]
            try:
                cases[i] = _prepare(case, dataset, settings, folder / CASES, contents)
            except LabError as error:
                broken[case.id] = str(error)
    if broken:
        problems = [f"{name}: {text}" for name, text in broken.items()]
        raise LabError(
            f"{listed(f'{dataset.root} cannot be used as it is', problems)}\n"
            f"Mend the files, or leave the cases out: --exclude {shlex.quote(','.join((*settings.exclude, *broken)))}"
        )
    index = {
        "dimension": dataset.dimension,
        "channels": len(dataset.sequences) * (3 if settings.colour else 1),
        "cases": cases,
    }
    place = folder / fingerprint(index)[:KEY]
    if not _same(place / INDEX, index):
        write_json(place / INDEX, index)
    return open_prepared(place)


def _prepare(case: Case, dataset: Dataset, settings: Settings, store: Path, contents: Contents) -> dict[str, Any]:
    """Name and placement of a case whose files are there and whole, made now or earlier."""
    steps = settings.section("Preparation") | {
        "size": wanted_size(settings, dataset.dimension),
        "colour": settings.colour,
    }
    files = contents.digests(case)
    content = [[files[path] for path in paths] for paths in (case.images, case.masks)]
    key = fingerprint([FORMAT, meaning(dataset), steps, content])
    stem = store / f"{file_name(case.id)[:NAME]}-{key[:KEY]}"
    record = _whole_record(stem, contents)
    if record is None:
        prepared, placement = prepare_case(case, dataset, settings)
        arrays = (prepared.image.numpy(), prepared.labels.numpy(), sample_foreground(prepared.labels.numpy()))
        for part, array in zip(PARTS, arrays, strict=True):
            _save(_file(stem, part), array)
        sums = {part: contents.digest(_file(stem, part), own=True) for part in PARTS}
        record = {"placement": placement.to_json(), "sha256": sums}
        write_json(_file(stem, RECORD), record)
    return {"name": stem.name, "placement": record["placement"]}


def _whole_record(stem: Path, contents: Contents) -> dict[str, Any] | None:
    """What was recorded of a case, if its files still hold what they held then."""
    try:
        record = read_json(_file(stem, RECORD))
        whole = all(contents.digest(_file(stem, part), own=True) == record["sha256"][part] for part in PARTS)
        Placement.from_json(record["placement"])
    except (FileNotFoundError, LabError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")


def _same(path: Path, value: object) -> bool:
    try:
        return bool(read_json(path) == value)
    except (FileNotFoundError, LabError):
        return False


def _save(path: Path, array: NDArray[Any]) -> None:
    """As np.save, which does not notice when the disk gets full with the last of its blocks."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)

    write_with(path, write)

"""The truth of a case as class indices, from the values that its mask files store."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE, Case, Dataset
from unifocal.lab.data.files import is_volume
from unifocal.lab.data.images import read_mask_values
from unifocal.lab.data.volumes import read_volume
from unifocal.lab.errors import LabError

BLOCK = 1 << 16  # voxels looked at together: a large volume is mostly background, and such blocks are done at once
STRANGE = 254  # stands for the class of a value that is not known


def read_mask(case: Case, dataset: Dataset) -> NDArray[np.uint8]:
    """Return the truth, (H, W) or (i, j, k): positions in `dataset.classes`, and `IGNORE` where there is no truth.

    Several masks of one case are united; where they overlap, the higher class wins.
    """
    return unite(case, dataset, map(read_values, case.masks))


def unite(case: Case, dataset: Dataset, stored: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
    """The truth of a case from the values that its masks store, as `read_mask` returns it."""
    truth: NDArray[np.uint8] | None = None
    for path, values in zip(case.masks, stored, strict=True):
        if not values.size:
            raise LabError(f"expected a mask; {path} holds no voxels.")
        mask = binarise(values) if dataset.values is None else to_classes(values, dataset.values, path)
        if truth is not None and truth.shape != mask.shape:
            raise LabError(f"expected masks of one size, {truth.shape}; {path} is {mask.shape}.")
        truth = mask if truth is None else np.maximum(truth, mask)
    if truth is None:
        raise LabError(f"expected at least one mask; case {case.id!r} has none.")
    return truth


def read_values(path: Path) -> NDArray[Any]:
    """The stored values of a mask file, (H, W) or (i, j, k)."""
    if not is_volume(path):
        return read_mask_values(path)
    values = read_volume(path).values
    if len(values) != 1:
        raise LabError(f"expected a mask of one channel; {path} has {len(values)}.")
    return np.asarray(values[0])


def to_classes(values: NDArray[Any], known: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """The class of every voxel; values that no class is known for are a LabError that lists them."""
    order: Literal["C", "F"] = "F" if values.flags.f_contiguous else "C"  # as in memory, whatever the axes are
    stored = values.ravel(order=order)
    classes = np.zeros(stored.size, np.uint8)
    table = np.full(max(known) + 2, STRANGE, np.uint8)  # the last entry is that of all greater values
    table[list(known)] = list(known.values())
    unknown: dict[float, int] = {}
    for start in range(0, stored.size, BLOCK):
        block = stored[start : start + BLOCK]
        if table[0] == 0 and not block.any():
            continue
        found = classes[start : start + BLOCK]
        if block.dtype.kind == "u":
            table.take(block, out=found, mode="clip")
        else:
            with np.errstate(invalid="ignore"):  # NaN becomes some number, and differs from it
                index = block.astype(np.intp)
            table.take(index, out=found, mode="clip")
            found[(index != block) | (index < 0)] = STRANGE
        strange = found == STRANGE
        if strange.any():
            for value, n in zip(*np.unique(block[strange], return_counts=True), strict=True):
                unknown[float(value)] = unknown.get(float(value), 0) + int(n)
    if unknown:
        shown = ", ".join(f"{value:g} ({n} times)" for value, n in sorted(unknown.items())[:8])
        more = f" and {len(unknown) - 8} other values" if len(unknown) > 8 else ""
        raise LabError(f"{path} holds {shown}{more}; known labels are {', '.join(map(str, sorted(known)))}")
    return classes.reshape(values.shape, order=order)


def binarise(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 1 where a mask marks the lesion.

    A mask with one positive value marks every positive pixel (0 and 1, or 0 and 255, or all 0). Several
    positive values mean soft edges (antialiasing, JPEG): then half of the mask's maximum is the threshold.
    """
    marks = values.astype(np.float64)
    top = marks.max()
    soft = ((marks > 0) & (marks < top)).any()
    return np.asarray(marks >= top / 2 if soft else marks > 0).astype(np.uint8)


def count_classes(mask: NDArray[np.uint8], classes: int) -> tuple[tuple[int, ...], int]:
    """Number of voxels of each class, and of those to ignore."""
    counts = np.zeros(IGNORE + 1, np.int64)
    flat = mask.ravel(order="K")
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        if block.any():
            counts += np.bincount(block, minlength=IGNORE + 1)
        else:
            counts[0] += block.size
    return tuple(counts[:classes].tolist()), int(counts[IGNORE])


def distinct_values(values: NDArray[Any]) -> NDArray[Any]:
    """The values that occur, sorted."""
    flat = values.ravel(order="K")
    found = [np.unique(block) for n in range(0, flat.size, BLOCK) if (block := flat[n : n + BLOCK]).any()]
    if not (flat != 0).all():
        found.append(np.zeros(1, flat.dtype))
    return np.unique(np.concatenate(found))

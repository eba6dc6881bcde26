"""The images of a case as arrays, one after the other."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.files import is_volume
from unifocal.lab.data.images import read_picture
from unifocal.lab.data.volumes import Grid, read_volume, turned
from unifocal.lab.errors import LabError


def read_sequences(
    case: Case, dataset: Dataset, colour: bool, axes: str | None = None
) -> Iterator[tuple[NDArray[np.float32], Grid | None]]:
    """Each image of a case as (channels, *spatial), which may be written to, and its grid if it is a volume.

    A picture comes with its colours together, the sequences of a volume one by one, whether files or channels. Volumes
    are turned to `axes`, or keep those of the file.
    Raises LabError if there are others than the data set says.
    """
    if not case.images:
        raise LabError(f"expected images; case {case.id!r} has masks alone. Add its images, or leave it out (exclude).")
    found = 0
    for path in case.images:
        if not is_volume(path):
            found += 1
            yield read_picture(path, colour), None
            continue
        volume = read_volume(path) if axes is None else turned(read_volume(path), axes)
        stored = volume.values
        if len(stored) > len(dataset.sequences) and dataset.channels is not None:
            stored = stored[list(dataset.channels)]
        found += len(stored)
        for values in stored:
            image = np.array(values, np.float32)
            if values.dtype.kind == "f" and not np.isfinite(image).all():
                raise LabError(f"expected finite voxels; {path} holds NaN or infinity. Repair or remove it.")
            yield image[None], volume.grid
    if found != len(dataset.sequences):
        names = ", ".join(dataset.sequences)
        raise LabError(f"expected the images {names}; case {case.id!r} has {found}.")

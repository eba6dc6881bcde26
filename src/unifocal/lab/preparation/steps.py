"""A case as the network sees it: clipped, resampled, normalised, cut; in this order.

Clipping comes first, so that metal and noise are gone before they could be spread over neighbours, and percentiles are
those of the image as it was taken. Normalising follows resampling, as in the published comparisons, whose volumes went
through MIScnn (resample, clip, normalise) and whose pictures were resized first: the values that the network sees are
those that fill [0, 1]. It precedes the cut, so that a crop does not change intensities and zeros of a padding do not
count. A padding is 0 in the image and `IGNORE` in the labels: there is no truth outside the image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifocal.lab.data.cases import IGNORE, Case, Dataset
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.volumes import Grid
from unifocal.lab.errors import LabError
from unifocal.lab.preparation.grids import resample_onto, resampled_grid
from unifocal.lab.preparation.intensity import clip, normalise
from unifocal.lab.preparation.placement import Placement
from unifocal.lab.preparation.resampling import resample_image, resample_labels
from unifocal.lab.preparation.sequences import read_sequences
from unifocal.lab.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """One case on the training grid.

    Attributes:
        image: (channels, *spatial) float32.
        labels: (*spatial) uint8, positions in the classes, `IGNORE` where there is no truth.
    """

    image: Tensor
    labels: Tensor


def prepare_image(
    case: Case, dataset: Dataset, settings: Settings, axes: str | None = None
) -> tuple[Tensor, Placement]:
    """The images of a case, (channels, *spatial) float32, and how they came onto the training grid; needs no masks.

    Axes are those of the file, unless volumes are to be turned to `axes`: then the placement is on the turned grid.
    Sequences with a grid of their own are seen from the grid of the first.
    """
    placement: Placement | None = None
    reference: Grid | None = None
    channels = []
    for image, grid in read_sequences(case, dataset, settings.colour, axes):
        clip(image, settings)
        if placement is None:
            placement, reference = Placement.of(image.shape[1:], grid.spacing if grid else None, settings), grid
        resampled = _resample(image, grid, reference, placement.resampled)
        channels.append(placement.cut(normalise(torch.from_numpy(resampled), settings.intensity).numpy(), fill=0))
    assert placement is not None  # a case without images was refused
    return torch.from_numpy(channels[0] if len(channels) == 1 else np.concatenate(channels)), placement


def _resample(
    image: NDArray[np.float32], grid: Grid | None, reference: Grid | None, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    if grid is None or reference is None or reference.mismatch(grid) is None:
        return resample_image(image, shape)
    return resample_onto(image[0], grid, resampled_grid(reference, shape))[None]


def prepare_case(case: Case, dataset: Dataset, settings: Settings) -> tuple[Prepared, Placement]:
    """Images and truth of a case on the training grid."""
    image, placement = prepare_image(case, dataset, settings)
    mask = read_mask(case, dataset)
    if mask.shape != placement.original:
        raise LabError(f"expected a mask of the image's shape, {placement.original}; got {mask.shape}.")
    labels = placement.cut(resample_labels(mask, placement.resampled), fill=IGNORE)
    return Prepared(image, torch.from_numpy(np.ascontiguousarray(labels))), placement

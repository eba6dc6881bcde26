"""Images, labels and probabilities on a finer or coarser grid of the same extent.

A voxel is a box and its position the centre of the box: of n voxels that become m, number o lies at
(o + 1/2) n / m - 1/2 on the old axis. The extent stays exactly; the spacing becomes the nearest that divides it.

Images are interpolated linearly; where an axis gets coarser the triangle is widened to the new spacing, so that
nothing aliases, and tilted so that its centre of mass is the new voxel's centre: a ramp stays the same ramp in the
world. (Without the tilt, as torch's antialiasing has it, a voxel slips by up to a twelfth of itself.)

Labels are the class with the largest share after linear interpolation of each class, not widened: as nnU-Net and
MIScnn do it. Widened, classes smaller than the new voxel vanish; the nearest voxel alone leaves jagged surfaces. Equal
shares go to the nearest voxel's class.

Volumes go through a sparse matrix for each axis, slice by slice: 512 x 512 x 300 voxels take half a second, and a third
of their own memory. Pictures are resized by torch, as in the published comparisons.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.data.masks import count_classes

TIE = 1e-4  # shares of classes that differ by less are equal


def resample_image(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A picture or volume, (channels, *old), on a grid of `shape`: (channels, *shape) float32."""
    if image.shape[1:] == shape:
        return np.ascontiguousarray(image)
    if len(shape) == 2:
        picture = torch.from_numpy(np.ascontiguousarray(image))[None]
        resized: NDArray[np.float32] = F.interpolate(picture, shape, mode="bilinear", antialias=True)[0].numpy()
        return resized
    return np.concatenate([resample_volume(channel, shape)[None] for channel in image])


def resample_labels(labels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Class indices on a grid of `shape`; of a picture the nearest pixel's. `IGNORE` stays where it is nearest."""
    if labels.shape == shape:
        return labels
    stored = torch.from_numpy(np.ascontiguousarray(labels))[None, None]
    nearest: NDArray[np.uint8] = F.interpolate(stored, shape, mode="nearest-exact")[0, 0].numpy()
    if len(shape) == 2:
        return nearest
    found = nearest.copy()
    largest = np.zeros(shape, np.float32)
    counts, _ = count_classes(labels, IGNORE)
    for index in np.flatnonzero(counts):
        share = resample_volume(labels == index, shape, widen=False)
        share[nearest == index] += TIE
        larger = share > largest
        largest[larger], found[larger] = share[larger], index
    found[nearest == IGNORE] = IGNORE
    return found


def resample_volume(volume: NDArray[np.generic], shape: tuple[int, ...], widen: bool = True) -> NDArray[np.float32]:
    """A volume (i, j, k) of any type on a grid of `shape`."""
    if volume.flags.f_contiguous and not volume.flags.c_contiguous:  # as files are read: slices along the last axis
        return np.ascontiguousarray(resample_volume(volume.T, shape[::-1], widen).T)
    across, *within = (weights(old, new, widen) for old, new in zip(volume.shape, shape, strict=True))
    slices = np.empty((len(volume), *shape[1:]), np.float32)
    for number, plane in enumerate(volume):
        slices[number] = resample_plane(np.ascontiguousarray(plane, np.float32), *within)
    return along_first(slices, across)


def along_first(array: NDArray[np.float32], matrix: csr_array | None) -> NDArray[np.float32]:
    """The first axis through its matrix; None leaves it."""
    if matrix is None:
        return array
    flat: NDArray[np.float32] = matrix @ array.reshape(len(array), -1)
    return flat.reshape(matrix.shape[0], *array.shape[1:])


def resample_plane(
    plane: NDArray[np.float32], rows: csr_array | None, columns: csr_array | None
) -> NDArray[np.float32]:
    """Both axes of a plane, each through its matrix."""
    return along_first(along_first(plane, rows).T, columns).T


def weights(old: int, new: int, widen: bool = True) -> csr_array | None:
    """The matrix (new, old) that resamples an axis; None if nothing changes. Each row adds up to one."""
    if old == new:
        return None
    scale = old / new
    width = max(scale, 1.0) if widen else 1.0
    centre = ((np.arange(new) + 0.5) * scale - 0.5)[:, None]
    reach = math.ceil(width)
    source = np.floor(centre).astype(int) + np.arange(-reach, reach + 2)
    weight = np.maximum(0, 1 - np.abs(source - centre) / width) * ((source >= 0) & (source < old))
    weight /= weight.sum(1, keepdims=True)
    if width > 1:  # tilted: times a line through one at the centre of mass, which moves that to the centre
        offset = source - centre
        mean = (weight * offset).sum(1, keepdims=True)
        weight *= 1 - mean * (offset - mean) / (weight * (offset - mean) ** 2).sum(1, keepdims=True)
    used = weight != 0
    ends = np.concatenate([[0], used.sum(1).cumsum()])
    return csr_array((weight[used].astype(np.float32), source[used], ends), shape=(new, old))

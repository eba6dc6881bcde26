"""Small volumes in the formats that the lab reads, written by the libraries of the field."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np


def save_volume(
    path: Path,
    values,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    directions: Sequence[int] = (1, 1, 1),
) -> Path:
    """Write (i, j, k) or (i, j, k, channel); origin in RAS millimetres, whatever the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    affine = np.diag([*np.multiply(spacing, directions), 1.0])
    affine[:3, 3] = origin
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(values, affine), path)
        return path
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([-origin[0], -origin[1], origin[2]])
    image.SetDirection(np.diag([-directions[0], -directions[1], directions[2]]).ravel().astype(float).tolist())
    sitk.WriteImage(image, str(path), useCompression=path.stem.endswith("zip"))
    return path


def block(shape=(6, 5, 4), value=1, dtype: Any = np.uint8, at=(slice(1, 3), slice(1, 3), slice(1, 3))):
    """A label volume with a box of one value."""
    labels = np.zeros(shape, dtype)
    labels[at] = value
    return labels


def noise(shape=(6, 5, 4), seed=0, dtype: Any = np.int16):
    return np.random.default_rng(seed).integers(-500, 500, shape).astype(dtype)

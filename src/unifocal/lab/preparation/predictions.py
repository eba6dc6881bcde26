"""Predictions as files in the format of the image: class indices, in its place in the world."""

import colorsys
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unifocal.lab.data.files import NIFTI, file_name, is_volume, suffix
from unifocal.lab.data.masks import read_values
from unifocal.lab.data.volumes import open_nifti, simple_itk
from unifocal.lab.errors import LabError
from unifocal.lab.storage import write_with

SUFFIXES = (".png", ".nii.gz", ".mha", ".nrrd")
FIRST_COLOURS = [0, 0, 0, 255, 255, 255, 230, 80, 60, 70, 130, 220, 250, 200, 60]
GOLDEN = 0.618  # of the circle of hues from one class to the next


def write_prediction(folder: Path, case: str, mask: NDArray[np.uint8], like: Path) -> Path:
    """Write class indices, (H, W) or (i, j, k) with axes as in the file of the image, and return the file.

    `like` is an image of the case, or its mask: a picture makes a PNG whose palette shows the classes, NIfTI makes
    .nii.gz, MetaImage .mha and NRRD .nrrd, each with the place of `like` (affine and codes, or direction, origin and
    spacing).
    """
    ending, write = _format_of(like)
    path = folder / f"{file_name(case)}{ending}"
    write_with(path, lambda part: write(part, mask, like))
    return path


def find_prediction(folder: Path, case: str) -> Path | None:
    """The file of a case in a folder of predictions; None if there is none."""
    paths = (folder / f"{file_name(case)}{ending}" for ending in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_prediction(folder: Path, case: str) -> NDArray[np.uint8]:
    """Class indices that `write_prediction` has written, (H, W) or (i, j, k)."""
    path = find_prediction(folder, case)
    if path is None:
        raise LabError(f"expected a prediction; there is none of case {case!r} in {folder}.")
    return read_values(path).astype(np.uint8)


def _format_of(like: Path) -> tuple[str, Callable[[Path, NDArray[np.uint8], Path], None]]:
    if not is_volume(like):
        return ".png", _write_png
    if suffix(like) in NIFTI:
        return ".nii.gz", _write_nifti
    return ".nrrd" if suffix(like) == ".nrrd" else ".mha", _write_itk


def _write_png(part: Path, mask: NDArray[np.uint8], like: Path) -> None:
    image = Image.fromarray(mask)
    image.putpalette(_palette())
    image.save(part, format="PNG")


def _palette() -> list[int]:
    """Black, white, red, blue, yellow, then hues far from their neighbours: 256 colours."""
    colours = list(FIRST_COLOURS)
    for index in range(len(colours) // 3, 256):
        colours += [round(255 * part) for part in colorsys.hsv_to_rgb(index * GOLDEN % 1, 0.7, 0.9)]
    return colours


def _write_nifti(part: Path, mask: NDArray[np.uint8], like: Path) -> None:
    reference = open_nifti(like)
    header = reference.header.copy()
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0
    image = type(reference)(mask.reshape(reference.shape[:3]), None, header)
    part.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _write_itk(part: Path, mask: NDArray[np.uint8], like: Path) -> None:
    itk = simple_itk()
    reader = itk.ImageFileReader()
    reader.SetFileName(str(like))
    reader.ReadImageInformation()
    n = reader.GetDimension()
    m = min(n, 3)
    image = itk.GetImageFromArray(mask.reshape(mask.shape[:m]).T)
    image.SetOrigin(reader.GetOrigin()[:m])
    image.SetSpacing(reader.GetSpacing()[:m])
    image.SetDirection(np.array(reader.GetDirection()).reshape(n, n)[:m, :m].ravel().tolist())
    named = part.with_name(part.name + _format_of(like)[0])  # ITK goes by the suffix
    try:
        itk.WriteImage(image, str(named), useCompression=True)
        named.replace(part)
    finally:
        named.unlink(missing_ok=True)

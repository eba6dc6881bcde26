"""Pictures as arrays: the image as grey or colour float32 with its own range, a mask as the values it stores.

Images and masks alike are turned and mirrored as their EXIF orientation says, so that arrays are what viewers show and
what masks are drawn on. Images of 16 bits keep their values; alpha is dropped, never read as grey or as truth.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unifocal.lab.data.cases import Case
from unifocal.lab.errors import LabError

# What Pillow raises on damaged files: SyntaxError comes from its PNG reader, struct.error from short headers.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
PREVIEWED = "MPO"  # a JPEG whose first picture is it, and whose others are previews of it or another view
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
ORIENTED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks and keys of a PNG that may hold an orientation


def read_image(case: Case) -> NDArray[np.float32]:
    """Return the first image of a case in grey, (H, W)."""
    image: NDArray[np.float32] = read_picture(case.image)[0]
    return image


def read_picture(path: Path, colour: bool = False) -> NDArray[np.float32]:
    """Return a picture as (channels, H, W).

    One channel, colour by luminance (ITU-R 601, rounded to whole grey levels); or, with `colour`, red, green and blue,
    which are three times the grey where the file has no colour.
    """
    with _opened(path) as stored:
        picture = _displayed(stored)
        if picture.mode in WIDE_MODES:
            pixels = np.asarray(picture).astype(np.float32)
        else:
            # By way of RGBA, which drops palette and transparency without blending them.
            direct = picture.mode in ("1", "L", "RGB", "RGBA")
            plain = picture if direct else picture.convert("RGBA")
            pixels = np.asarray(plain.convert("RGB" if colour else "L")).astype(np.float32)
    _check_finite(pixels, path)
    if pixels.ndim == 3:
        return np.moveaxis(pixels, -1, 0)
    return np.stack([pixels] * 3) if colour else pixels[None]


def read_mask_values(path: Path) -> NDArray[Any]:
    """Return the stored values (H, W) of one mask file, as it is displayed.

    Bilevel masks give 0 and 1; coloured palettes their indices (the colours only paint the classes), grey
    palettes their greys; RGB the brightest channel, which is the grey where the channels agree and loses no
    colour where they differ. Alpha is never read.
    """
    with _opened(path) as stored:
        picture = _displayed(stored)
        if picture.mode == "1":
            return np.asarray(picture).astype(np.uint8)
        if picture.mode == "L" or picture.mode in WIDE_MODES:
            return np.asarray(picture)
        if picture.mode == "P" and not _has_grey_palette(picture):
            return np.asarray(picture)
        rgb = np.asarray(picture.convert("RGBA"))[..., :3]
        return np.asarray(rgb.max(-1))


def check_picture(path: Path) -> tuple[int, int]:
    """Return (height, width) as displayed; a damaged file is a LabError, and one with NaN or infinity.

    PNG is looked at by its checksums, and decoded only where it may be turned; the rest by decoding.
    """
    with _opened(path) as picture:
        pages = getattr(picture, "n_frames", 1)
        if pages > 1 and picture.format != PREVIEWED:
            raise LabError(f"expected one picture; {path} holds {pages} pages. Save each as its own file.")
        if picture.format == "PNG":
            picture.verify()
            content = path.read_bytes()
            if not any(word in content for word in ORIENTED):
                return picture.height, picture.width
    with _opened(path) as stored:  # anew: after `verify` nothing can be decoded
        picture = _displayed(stored)
        _check_finite(np.asarray(picture), path)
        return picture.height, picture.width


def _displayed(picture: Image.Image) -> Image.Image:
    """The picture as viewers show it; EXIF that cannot be read turns nothing."""
    picture.load()
    try:
        picture.getexif()
    except DAMAGED:
        return picture
    return ImageOps.exif_transpose(picture)


def _check_finite(pixels: NDArray[Any], path: Path) -> None:
    if not np.isfinite(pixels).all():
        raise LabError(f"expected finite pixels; {path} holds NaN or infinity. Repair or remove it.")


class _opened:
    """Context: an open Pillow image; damage found on opening or decoding is a LabError naming it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Image.Image:
        try:
            # Not by its name: Pillow would map TIFF into memory, and mix up the rows of one that lies on its side.
            self.picture = Image.open(io.BytesIO(self.path.read_bytes()))
        except DAMAGED as error:
            raise self._explained(error) from error
        return self.picture

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.picture.close()
        if isinstance(error, DAMAGED) and not isinstance(error, LabError):
            raise self._explained(error) from error

    def _explained(self, error: BaseException) -> LabError:
        if isinstance(error, FileNotFoundError):
            return LabError(f"expected an image file; {self.path} is gone. Has the folder changed?")
        return LabError(f"expected a readable image; {self.path} is damaged or of unknown format ({error}).")


def _has_grey_palette(picture: Image.Image) -> bool:
    palette = np.asarray(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())

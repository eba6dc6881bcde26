"""Volumes as arrays with their place in space: NIfTI by nibabel, MetaImage and NRRD by SimpleITK.

Axes keep the order of the file: nothing is turned on reading; `turned` does it where that is wanted. An array is
(channels, i, j, k), and `Grid.affine` takes (i, j, k) to millimetres right, anterior and superior, whatever the format.
KiTS19 stores its slices first, so i counts its slices; most others store them last.
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.files import NIFTI, suffix
from unifocal.lab.data.sizes import missing_bytes
from unifocal.lab.errors import LabError

# A format keeps numbers as float32 or as short texts, so two files of one grid differ by rounding. Masks that were
# drawn on another grid are off by half a voxel and more; in between nothing was seen.
SPACING_TOLERANCE = 1e-3  # of the spacing
PLACE_TOLERANCE = 0.1  # of a voxel, at any corner of the volume

COMPLEX = "complex numbers. Save their magnitude."

LINES = {"L": "LR", "R": "LR", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}  # that a letter of `Grid.axes` lies on

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie; `affine` has three rows of four, in mm."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine (4, 4), as nibabel and MONAI want it."""
        return np.vstack([np.array(self.affine), [0, 0, 0, 1]])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbours along each axis, in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.matrix[:3, :3], axis=0))

    @property
    def origin(self) -> tuple[float, ...]:
        """Where the first voxel lies, in mm."""
        return tuple(row[3] for row in self.affine)

    @property
    def axes(self) -> str:
        """Where i, j and k point, by letter: L(eft) or R(ight), A(nterior) or P(osterior), S(uperior) or I(nferior)."""
        from nibabel.orientations import aff2axcodes

        codes: tuple[str | None, ...] = aff2axcodes(self.matrix)  # type: ignore[no-untyped-call]
        return "".join(code or "?" for code in codes)

    def mismatch(self, other: "Grid") -> str | None:
        """How two grids differ, by the first difference that matters; None if they are one grid."""
        if self.shape != other.shape:
            return f"shapes differ: {_by(self.shape)} and {_by(other.shape)}"
        if not np.allclose(self.spacing, other.spacing, rtol=SPACING_TOLERANCE):
            return f"spacings differ: {_by(self.spacing)} and {_by(other.spacing)} mm"
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
        corners[:, :3] *= np.array(self.shape) - 1
        apart = np.abs(corners @ (self.matrix - other.matrix).T).max(0)[:3]
        if (apart > PLACE_TOLERANCE * min(self.spacing)).any():
            first = np.abs(np.subtract(self.origin, other.origin))
            if (first > PLACE_TOLERANCE * min(self.spacing)).any():
                return f"origins differ: {_at(self.origin)} and {_at(other.origin)} mm"
            return f"directions differ: {self.axes} and {other.axes}, up to {apart.max():.3g} mm apart at the corners"
        return None


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its voxels."""

    grid: Grid
    channels: int


@dataclass(frozen=True)
class Volume:
    """The voxels of a file, (channels, i, j, k), and where they lie."""

    values: NDArray[Any]
    grid: Grid


def read_header(path: Path) -> Header:
    """Read the header alone, and see by the size of the file whether the voxels are all there.

    Raises LabError for a file that is broken, cut short or no volume.
    """
    header = _header_by_nibabel(path) if suffix(path) in NIFTI else _header_by_itk(path)
    matrix = header.grid.matrix
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise LabError(
            f"expected a header that places the volume in space; {path} has the affine {header.grid.affine}. "
            "Write the file anew with a spacing of each axis."
        )
    return header


def read_volume(path: Path) -> Volume:
    """Read a whole file; values as stored, or scaled where the header says so."""
    return _by_nibabel(path) if suffix(path) in NIFTI else _by_itk(path)


def turned(volume: Volume, axes: str) -> Volume:
    """The same voxels in the same places, counted along other axes, as in ``RAS``."""
    order, flips = _change(volume.grid.axes, axes)
    lengths = [volume.grid.shape[n] for n in order]
    change = np.zeros((4, 4))  # from the new indices to the old ones
    change[3, 3] = 1
    for new, (old, flip, length) in enumerate(zip(order, flips, lengths, strict=True)):
        change[old, new] = flip
        change[old, 3] = 0 if flip == 1 else length - 1
    i, j, k = lengths
    return Volume(turn(volume.values, volume.grid.axes, axes), _grid((i, j, k), volume.grid.matrix @ change))


def turn(values: NDArray[Number], axes: str, wanted: str) -> NDArray[Number]:
    """A view of an array whose last three axes point along `axes`, exchanged and flipped so that they point as wanted.

    Both have a letter for each axis, as in ``LPS``.
    """
    order, flips = _change(axes, wanted)
    first = values.ndim - 3
    moved = values.transpose(*range(first), *(first + n for n in order))
    index: tuple[Any, ...] = (..., *(slice(None, None, flip) for flip in flips))
    flipped: NDArray[Number] = moved[index]
    return flipped


def _change(axes: str, wanted: str) -> tuple[list[int], list[int]]:
    """Of each wanted axis: which one it is now, and 1 or -1 for its direction."""
    order = [next(n for n, letter in enumerate(axes) if letter in LINES[there]) for there in wanted]
    return order, [1 if axes[n] == there else -1 for n, there in zip(order, wanted, strict=True)]


def open_nifti(path: Path) -> Any:
    """The image as nibabel has it, voxels not yet read; a LabError if it is none, or not of real numbers."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.loadsave import load
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = load(path)
    except FileNotFoundError:
        raise LabError(f"expected a volume; {path} is gone. Has the folder changed?") from None
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    stored = image.dataobj.dtype
    if stored.names or stored.kind == "c":
        raise _unreal(path, f"colours ({', '.join(stored.names)}). Save grey values." if stored.names else COMPLEX)
    return image


def _header_by_nibabel(path: Path) -> Header:
    image = open_nifti(path)
    shape, channels = _split_shape(path, image.shape)
    stored = image.dataobj
    size = int(stored.offset) + math.prod(image.shape) * stored.dtype.itemsize
    missing = missing_bytes(path, size)
    if missing:
        raise _damaged(path, missing)
    return Header(_grid(shape, image.affine), channels)


def _by_nibabel(path: Path) -> Volume:
    image = open_nifti(path)
    shape, channels = _split_shape(path, image.shape)
    try:
        if path.name.lower().endswith(".gz"):  # nibabel stops at the last voxel, and so before the checksum
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    return Volume(np.moveaxis(values.reshape(*shape, channels, order="F"), -1, 0), _grid(shape, image.affine))


def _header_by_itk(path: Path) -> Header:
    missing = missing_bytes(path)
    if missing:
        raise _damaged(path, missing)
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, _last_line(error)) from error
    if simple_itk().GetPixelIDValueAsString(reader.GetPixelID()).startswith("complex"):
        raise _unreal(path, COMPLEX)
    shape, channels = _split_shape(path, (*reader.GetSize(), *_components(reader.GetNumberOfComponents())))
    return Header(_itk_grid(shape, reader), channels)


def _by_itk(path: Path) -> Volume:
    itk = simple_itk()
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError as error:
        raise _damaged(path, _last_line(error)) from error
    values = itk.GetArrayFromImage(image)  # (k, j, i), then components if there are several
    components = _components(image.GetNumberOfComponentsPerPixel())
    if components:
        values = np.moveaxis(values, -1, 0)
    shape, channels = _split_shape(path, (*image.GetSize(), *components))
    return Volume(values.T.reshape(*shape, channels, order="F").transpose(3, 0, 1, 2), _itk_grid(shape, image))


def simple_itk() -> Any:
    """The library, which is an extra; a LabError where it is not installed."""
    try:
        import SimpleITK as itk
    except ModuleNotFoundError:
        raise LabError(
            "expected SimpleITK, which reads .mha, .mhd and .nrrd; it is not installed. pip install 'unifocal[lab,io]'"
        ) from None
    library: Any = itk
    library.ProcessObject.SetGlobalWarningDisplay(False)  # what matters of it comes as an exception
    return library


def _components(number: int) -> tuple[int, ...]:
    """The axis of a vector image that its size does not name."""
    return (number,) if number > 1 else ()


def _split_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """(i, j, k) and the number of channels; a single slice is a volume of one."""
    if 2 <= len(shape) <= 5 and all(shape):
        i, j, k, *channels = (*shape, 1) if len(shape) == 2 else shape
        return (int(i), int(j), int(k)), math.prod(channels)
    raise LabError(f"expected a volume of three axes, or four with channels; {path} has the shape {_by(shape)}.")


def _grid(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Grid:
    return Grid(shape, tuple(tuple(float(value) for value in row) for row in affine[:3]))


def _itk_grid(shape: tuple[int, int, int], image: Any) -> Grid:
    """ITK counts millimetres to the left and posterior; a fourth axis is channels."""
    n = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(n, n)
    affine = np.eye(4)
    m = min(n, 3)
    affine[:m, :m] = direction[:m, :m] * np.array(image.GetSpacing())[:m]
    affine[:m, 3] = image.GetOrigin()[:m]
    return _grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _damaged(path: Path, why: object) -> LabError:
    return LabError(f"expected a readable volume; {path} is damaged or of unknown format ({why}).")


def _unreal(path: Path, what: str) -> LabError:
    return LabError(f"expected one real number in each voxel; {path} holds {what}")


def _last_line(error: RuntimeError) -> str:
    """ITK's message ends with what happened."""
    return str(error).strip().splitlines()[-1].strip()


def _by(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers)


def _at(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number:.2f}' for number in numbers)})"

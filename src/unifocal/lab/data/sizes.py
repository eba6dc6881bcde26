"""Is a volume's file whole? Told from its size, so that thousands can be checked without unpacking them.

A gzip file ends with the length of what it holds; one that was cut short ends with anything else. Only then is it
unpacked, to be sure. Headers of MetaImage and NRRD are text and say how many bytes follow, here or in another file.
"""

import gzip
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from unifocal.lab.data.files import suffix

WRAP = 2**32  # gzip counts its length up to here
META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "FLOAT": 4,
              "DOUBLE": 8, "LONG_LONG": 8, "ULONG_LONG": 8}  # fmt: skip
NRRD_BYTES = {"char": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8}
HEADER = 1 << 16  # bytes in which a text header must end


def missing_bytes(path: Path, size: int | None = None) -> str | None:
    """What is missing of a file, in words; None if nothing is, or if nothing can be told.

    size  of a NIfTI file unpacked, in bytes: its header and its voxels
    """
    try:
        if suffix(path) == ".nii.gz":
            return None if size is None else _missing_of_gzip(path, size, 0)
        if suffix(path) == ".nii":
            return None if size is None else _missing_of_plain(path, size)
        return {".mha": _missing_of_meta, ".mhd": _missing_of_meta, ".nrrd": _missing_of_nrrd}[suffix(path)](path)
    except FileNotFoundError as error:
        return f"{error.filename} is missing"


def files_of(path: Path) -> list[Path]:
    """The file, and the one that a header of MetaImage or NRRD leaves its voxels to; no lists of slices."""
    place: str | None = None
    if suffix(path) in (".mha", ".mhd"):
        place = _meta_header(path)[0].get("ElementDataFile", "LOCAL")
    elif suffix(path) == ".nrrd":
        place = _nrrd_data(_nrrd_header(path)[0])
    if place is None or place.upper() == "LOCAL" or _is_list(place):
        return [path]
    return [path, path.parent / place]


def _missing_of_plain(path: Path, size: int) -> str | None:
    found = path.stat().st_size
    return f"it holds {found} of {size} bytes" if found < size else None


def _missing_of_gzip(path: Path, size: int, start: int) -> str | None:
    """`start` is where the gzip stream begins."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 4))
        told = int.from_bytes(file.read(4), "little")
        if size < WRAP and size <= told < size + HEADER:
            return None
        file.seek(start)
        unpacked = 0
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                while block := stream.read(1 << 20):
                    unpacked += len(block)
        except (EOFError, OSError, zlib.error) as error:
            return f"{error}, after {unpacked} of {size} bytes"
    return f"it unpacks to {unpacked} of {size} bytes" if unpacked < size else None


def _missing_of_meta(path: Path) -> str | None:
    fields, start = _meta_header(path)
    if start is None:
        return "its header has no end"
    if fields.get("CompressedData", "").lower() == "true":
        size = int(fields.get("CompressedDataSize", 0))  # older writers leave it out: then nothing can be told
    else:
        one = META_BYTES.get(fields.get("ElementType", "").removeprefix("MET_"), 0)
        axes = [int(n) for n in fields.get("DimSize", "").split()]
        size = one * math.prod(axes) * int(fields.get("ElementNumberOfChannels", 1))
    place = fields.get("ElementDataFile", "")
    if place.upper() == "LOCAL":
        return _missing_of_plain(path, start + size)
    if _is_list(place):  # one file for each slice: left to ITK
        return None
    return _missing_of_plain(path.parent / place, size)


def _meta_header(path: Path) -> tuple[dict[str, str], int | None]:
    """The fields of a MetaImage, and where its header ends; None if nowhere."""
    with path.open("rb") as file:
        head = file.read(HEADER)
    end = re.search(rb"ElementDataFile *= *([^\r\n]*)\r?\n?", head)
    if end is None:
        return {}, None
    return dict(re.findall(r"^(\w+) *= *(.*?) *\r?$", head[: end.end()].decode("latin-1"), re.MULTILINE)), end.end()


def _is_list(place: str) -> bool:
    return place.upper().startswith("LIST") or "%" in place


def _missing_of_nrrd(path: Path) -> str | None:
    fields, end = _nrrd_header(path)
    name, encoding = _nrrd_data(fields), fields.get("encoding", "")
    if name is None and end is None:
        return "its header has no end"
    one = next((n for word, n in NRRD_BYTES.items() if word in fields.get("type", "")), 1)
    size = one * math.prod(int(n) for n in fields.get("sizes", "").split())
    data, start = (path, end) if name is None and end is not None else (path.parent / (name or ""), 0)
    check: Callable[[], str | None] = {
        "raw": lambda: _missing_of_plain(data, start + size),
        "gzip": lambda: _missing_of_gzip(data, size, start),
        "gz": lambda: _missing_of_gzip(data, size, start),
    }.get(encoding, lambda: None)
    return check()


def _nrrd_header(path: Path) -> tuple[dict[str, str], int | None]:
    """The fields of a NRRD file, and where its header ends; None if nowhere."""
    with path.open("rb") as file:
        head = file.read(HEADER)
    blank = re.search(rb"\r?\n\r?\n", head)
    fields = dict(re.findall(r"^([\w ]+): (.*?)\r?$", head.split(b"\n\n")[0].decode("latin-1"), re.MULTILINE))
    return fields, blank.end() if blank else None


def _nrrd_data(fields: dict[str, str]) -> str | None:
    return fields.get("data file", fields.get("datafile"))

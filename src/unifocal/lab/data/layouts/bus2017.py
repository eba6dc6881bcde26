"""BUS2017 dataset B, breast ultrasound: two folders with equal file names."""

from pathlib import Path

from unifocal.lab.data.files import pictures_in, subfolder
from unifocal.lab.data.layouts.base import Found, Layout, pair


def is_here(folder: Path) -> bool:
    return subfolder(folder, ("original",)) is not None and subfolder(folder, ("gt",)) is not None


def read(folder: Path) -> Found:
    images, masks = subfolder(folder, ("original",)), subfolder(folder, ("gt",))
    return Found(*pair(pictures_in(images) if images else [], pictures_in(masks) if masks else []))


LAYOUT = Layout("bus2017", "original/000001.png and GT/000001.png", is_here, read)

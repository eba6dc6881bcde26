"""A data set and settings so small that a comparison takes seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from unifocal.lab import cli
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.settings import make_settings


def write_data(folder: Path, n: int = 12, size: tuple[int, int] = (40, 48)) -> Path:
    """Noise with a bright block, not square, the last case without a block; the plain layout."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(n):
        mask = np.zeros(size, np.uint8)
        if i < n - 1:
            top, left = rng.integers(2, 18, 2)
            mask[top : top + 10, left : left + 14] = 1
        image = rng.integers(0, 120, size) + 100 * mask
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(255 * mask).save(folder / "masks" / f"{i}.png")
    return folder


def read_data(folder: Path, n: int = 12):
    return read_dataset(write_data(folder, n))


def make_tiny(losses: str = "dice,focal", **changes):
    values = {"folds": 2, "epochs": 2, "size": 32, "width": 4, "batch_size": 4, "threads": 1, "device": "cpu"}
    return make_settings(losses=losses, **values | changes)


def run(*arguments: object) -> object:
    """Exit code of the command line."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0

"""Where the shared material is, and one thread: the tests are many and small."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real data: `UNIFOCAL_SHARED`, or `shared` beside the repository."""
    folder = Path(os.environ.get("UNIFOCAL_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        message = f"no shared material at {folder}; set UNIFOCAL_SHARED to the folder that holds golden/ and data/"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder

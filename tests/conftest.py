"""Where the shared material is, and one thread: the tests are many and small."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no process is left with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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


@pytest.fixture
def out() -> Iterator[Path]:
    """An output folder, in memory where there is such a place: for tests that write many files and wait for each."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="unifocal-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "out"

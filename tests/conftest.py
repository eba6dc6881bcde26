"""Where the shared material is, and one thread: the tests are many and small."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


HERE = Path(__file__).parent
STARTED = time.monotonic()
FIRST = "test_the_definition_in_the_interpreter"  # takes minutes, so that it must not come last


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None and item.name != FIRST


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow comes last, and is left out once the time is up that UNIFOCAL_TEST_SECONDS gives.

    Which of it comes first differs from commit to commit, so that none is always left out.
    """
    items.sort(key=lambda item: (item.name != FIRST, is_slow(item)))
    slow = [item for item in items if is_slow(item)]
    if slow:
        first = commit() % len(slow)
        items[-len(slow) :] = slow[first:] + slow[:first]


def commit() -> int:
    """A number for what is checked out; 0 where Git does not tell."""
    try:
        told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(told.stdout, 16)


def pytest_runtest_setup(item: pytest.Item) -> None:
    given = os.environ.get("UNIFOCAL_TEST_SECONDS")
    if given and is_slow(item) and time.monotonic() - STARTED > float(given):
        pytest.skip(f"a slow test, and the {given} s of UNIFOCAL_TEST_SECONDS are up; without it all of them run")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden values and real data: `UNIFOCAL_SHARED`, or `shared` beside the repository."""
    folder = Path(os.environ.get("UNIFOCAL_SHARED", HERE.parents[1] / "shared"))
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

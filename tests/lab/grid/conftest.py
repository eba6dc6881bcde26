"""Folders in memory, where there is such a place: these tests write many small files and wait for each."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def out():
    """An output folder."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="unifocal-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "out"

"""The C++ files: any compiler takes them, and an installation without one says so and leaves nothing old behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unifocal.sums import native

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/unifocal/sums/cpu").glob("*.cpp"))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_compiler_takes_every_file(compiler):
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    for source in SOURCES:
        command = [compiler, "-std=c++17", "-fsyntax-only", "-Wno-psabi", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_with_a_compiler_the_engine_is_there():
    """What does not compile is only told by an installation, so that the tests would go on without it."""
    if not shutil.which("g++"):
        pytest.skip("no g++ here")
    assert native.why_missing() is None


def test_without_a_compiler_the_installation_goes_on_and_an_old_library_goes(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / "src/unifocal/sums"
    shutil.copytree(ROOT / "src/unifocal/sums/cpu", folder / "cpu")
    library = folder / "_native.so"
    library.write_bytes(b"of other sources")
    none = {"CC": "no-compiler", "CXX": "no-compiler"}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=os.environ | none,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unifocal: WARNING: installed without its compiled engine" in done.stderr
    assert not library.exists()

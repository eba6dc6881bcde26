"""Compiles the C++ files into a plain shared library for ctypes; the package does without it where it must."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NAME = "unifocal.sums._native"
FOLDER = Path("src/unifocal/sums/cpu")
SOURCES = sorted(f.as_posix() for f in FOLDER.glob("*.cpp"))
HEADERS = sorted(f.as_posix() for ending in ("h", "inl") for f in FOLDER.glob(f"*.{ending}"))
FLAGS = ["-O3", "-g0", "-std=c++17", "-ffp-contract=fast", "-Wno-psabi"]  # psabi: its vectors never leave the library


class BuildLibrary(build_ext):
    """Compiles with OpenMP where the compiler has it, and lets the installation go on where there is no compiler."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extensions(self) -> None:
        compile_files = self.compiler.compile

        def side_by_side(sources: list[str], **how: Any) -> list[str]:
            with ThreadPoolExecutor() as pool:
                return [o for objects in pool.map(lambda s: compile_files([s], **how), sources) for o in objects]

        self.compiler.compile = side_by_side  # else a file waits for the one before
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        for openmp in (["-fopenmp"], []):
            ext.extra_compile_args, ext.extra_link_args = FLAGS + openmp, openmp
            try:
                return super().build_extension(ext)
            except Exception as error:  # whatever a missing or foreign compiler raises
                print(f"unifocal: not compiled {'with' if openmp else 'without'} OpenMP: {error}", file=sys.stderr)
        (FOLDER.parent / Path(self.get_ext_filename(NAME)).name).unlink(missing_ok=True)  # of other sources
        print(
            "unifocal: WARNING: installed without its compiled engine; the losses work, several times slower on CPUs. "
            "`unifocal engines` says so too. With g++ or clang++ there, install it once more.",
            file=sys.stderr,
        )


class PlatformWheel(bdist_wheel):
    """A wheel for every Python 3 of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension(NAME, SOURCES, depends=HEADERS, language="c++", optional=True)],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)

#!/usr/bin/env python3
"""The front door: set up .venv once, then run the demo, the benchmark, the tests or the checks. Standard library only.

    python dev.py setup | demo | bench [options] | test [pytest arguments] | check | format

Environment:
    UNIFOCAL_TORCH_INDEX  package index that holds CPU builds of torch, asked only where the default index would
                          bring GPU packages onto a machine without a GPU
    UNIFOCAL_SYSTEM_SITE  1: make .venv see the packages of this interpreter (saves the download of the pinned torch)
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "unifocal-setup"
CONSTRAINTS = ROOT / "constraints.txt"
LIBRARY = ROOT / "src/unifocal/sums/_native.so"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GPU_PREFIXES = ("nvidia", "cuda", "triton")
SUPPORTED = ((3, 11), (3, 13))


def setup() -> None:
    """Make .venv as pyproject.toml and constraints.txt describe it, unless that has been done."""
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        sys.exit(
            f"unifocal needs Python 3.11 to 3.13; this is {sys.version.split()[0]} ({sys.executable}).\n"
            "Name another one: make test PYTHON=python3.11"
        )
    compiler = next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None)  # one may come later
    wanted = f"{sys.version}\n{_fingerprint()}\n{compiler}"
    found = STAMP.read_text() if STAMP.exists() and PYTHON.exists() else ""
    if found == wanted:
        return
    if not found.startswith(sys.version):  # new, never finished, or of another Python
        print("Setting up .venv (once; a few minutes) ...", flush=True)
        try:
            shared = os.environ.get("UNIFOCAL_SYSTEM_SITE") == "1"
            venv.create(VENV, with_pip=True, clear=True, system_site_packages=shared)
        except subprocess.CalledProcessError:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit("This Python cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv")
    torch = _pinned("torch")
    pip("install", *_index_for(torch), torch, reason="installing torch")
    pip("install", "-e", f"{ROOT}[dev]", reason="installing unifocal and its tools")
    if not LIBRARY.exists():  # which pip does not pass on
        print("  its C++ did not compile (is g++ or clang++ here?): on CPUs the losses take several times as long")
    compile_all()
    STAMP.write_text(wanted)


def pip(*arguments: str, reason: str) -> None:
    """Run pip under the constraints; its own words are shown only if it fails."""
    print(f"  {reason} ...", flush=True)
    command = [str(PYTHON), "-m", "pip", arguments[0], "--no-compile", "-c", str(CONSTRAINTS), *arguments[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{done.stdout}\n{reason} failed. Mend the cause above (network? disk?) and run the same command again."
        )


def compile_all() -> None:
    """Byte-compile what was installed, on every core, which pip would do on one; and no library's own tests."""
    print("  compiling to bytecode ...", flush=True)
    command = [str(PYTHON), "-m", "compileall", "-q", "-j", "0", "-x", r"[/\\]tests?[/\\]", str(VENV)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _fingerprint() -> str:
    sources = [f for end in ("cpp", "h", "inl") for f in sorted((ROOT / "src/unifocal/sums/cpu").glob(f"*.{end}"))]
    files = (ROOT / "pyproject.toml", CONSTRAINTS, ROOT / "setup.py", *sources)
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


def _pinned(package: str) -> str:
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("#")[0].strip()
    sys.exit(f"constraints.txt does not pin {package}; add a line {package}==VERSION.")


def _index_for(torch: str) -> list[str]:
    """Extra index for pip, so that a machine without a GPU gets a torch without GPU packages, or none at all."""
    if shutil.which("nvidia-smi") or not _gpu_packages(torch, []):
        return []
    extra = ["--extra-index-url", os.environ.get("UNIFOCAL_TORCH_INDEX", CPU_INDEX)]
    unwanted = _gpu_packages(torch, extra)
    if unwanted:
        sys.exit(
            f"{torch} would bring {len(unwanted)} GPU packages ({unwanted[0]}, ...) onto a machine without a GPU, and "
            f"{extra[1]} offers no CPU build for Python {sys.version.split()[0]}.\n"
            "Name an index that does in UNIFOCAL_TORCH_INDEX, or install torch yourself and set UNIFOCAL_SYSTEM_SITE=1."
        )
    return extra


def _gpu_packages(torch: str, extra: list[str]) -> list[str]:
    """Names of the GPU packages that pip would install for torch."""
    command = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *extra, torch]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}\npip cannot find {torch}. Is there a network, and is this Python 3.11 to 3.13?")
    names = [entry["metadata"]["name"].lower() for entry in json.loads(done.stdout)["install"]]
    return [name for name in names if name.startswith(GPU_PREFIXES)]


def run(*command: str, **environment: str) -> int:
    """Run a program of .venv in the repository; an interrupt reaches it too, and it ends in its own way."""
    program, *arguments = command
    process = subprocess.Popen([str(BIN / program), *arguments], cwd=ROOT, env={**os.environ, **environment})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def demo(*arguments: str) -> int:
    """The comparison of the README on a synthetic data set."""
    return run("unifocal", "demo", *arguments)


def bench(*arguments: str) -> int:
    """Time and memory of the losses on the CPU; `bench --help` has the options."""
    return run("python", str(ROOT / "benchmarks" / "losses.py"), *arguments)


def check() -> int:
    """Style, layout of the code and types."""
    return run("ruff", "check", ".") or run("ruff", "format", "--check", ".") or run("mypy")


def test(*arguments: str) -> int:
    """The checks, then all tests, on every core with one thread each; who is done early takes over from the others."""
    return check() or run("pytest", "-n", "auto", "--dist", "worksteal", "-q", *arguments, OMP_NUM_THREADS="1")


def reformat() -> int:
    """Let ruff put the code in order."""
    return run("ruff", "check", "--fix", ".") or run("ruff", "format", ".")


COMMANDS = {"setup": lambda: 0, "demo": demo, "bench": bench, "test": test, "check": check, "format": reformat}


def main() -> int:
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in COMMANDS or (arguments and name not in ("demo", "bench", "test")):
        print(__doc__)
        return 2
    setup()
    return COMMANDS[name](*arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)

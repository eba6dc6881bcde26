#!/usr/bin/env python3
"""Time and memory of every loss of unifocal, against F.cross_entropy and the losses of other libraries.

Writes one CSV, prints tables and how the goals stand, and draws the README's figure. README.md beside this file says
what is measured and how to read it.
"""

import argparse
import csv
import datetime
import difflib
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from report import MAIN, draw, report, shape_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FIGURE = ROOT / "docs" / "benchmark.png"

SHAPES = (MAIN, "2x3x80x160x160", "1x14x96^3", "2x1x96^3", "32x2x128^2", "2x2x64^2", "1x105x96^3")
DTYPES = ("float32", "bfloat16")
LABELS = ("blob-uint8", "blob-int64", "shuffled-uint8", "shuffled-int64", "soft")
HEAPS = ("warm", "default")
SOME = (
    ("float32", "blob-uint8"),
    ("float32", "shuffled-int64"),
    ("float32", "soft"),
    ("bfloat16", "blob-uint8"),
)  # enough to see every kind of input once
REPRESENTATIVE = (
    "cross-entropy",
    "dice",
    "focal",
    "unified-focal",
    "adaptive-focal",
    "focal-tversky",
    "dice-focal",
    "combo",
)
FEWEST = ("cross-entropy", "unified-focal", "dice-focal")
LARGE, HUGE = 8_000_000, 50_000_000  # voxel-classes from which a cell takes long enough to choose what runs

COLUMNS = (
    "date", "commit", "hardware", "torch", "device", "heap", "threads",
    "shape", "dtype", "labels", "contender", "kind", "engine", "mode",
    "rounds", "clock", "time_ms", "ratio", "ratio_iqr", "wall_ms", "wall_ratio", "page_faults",
    "peak", "peak_method", "peak_rss", "kept", "kept_tensors", "gb_per_s", "copy_gb_per_s", "skipped",
)  # fmt: skip

Row = dict[str, Any]


# --------------------------------------------------------------------------------------------------- options


def shape_name(text: str) -> str:
    """The text itself, if it is a shape."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*(\^[1-9])?){2,}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; write batch x channels x axes, such as {MAIN}")
    return text


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked; a list that was not given is None where the plan has a rule of its own."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--quick", action="store_true", help="a look: three shapes, one heap, one thread, fewest losses")
    p.add_argument("--full", action="store_true", help="every loss, peer, dtype and kind of labels on every shape")
    p.add_argument("--shapes", nargs="+", type=shape_name, metavar="SHAPE", help=f"default: {' '.join(SHAPES)}")
    p.add_argument("--losses", nargs="+", metavar="NAME", help="names of unifocal.available(), or all")
    p.add_argument("--engines", nargs="+", metavar="NAME", help="default: native aten; on CUDA triton")
    p.add_argument("--dtypes", nargs="+", choices=DTYPES, metavar="DTYPE", help=" ".join(DTYPES))
    p.add_argument("--labels", nargs="+", choices=LABELS, metavar="KIND", help=" ".join(LABELS))
    p.add_argument("--heaps", nargs="+", choices=HEAPS, metavar="HEAP", help=" ".join(HEAPS))
    p.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1 2")
    p.add_argument("--peers", choices=("all", "few", "none"), help="default: all in one cell, few elsewhere")
    p.add_argument("--rounds", type=int, default=9, help="at most so many for each contender (default: %(default)s)")
    p.add_argument("--compiled", action=argparse.BooleanOptionalAction, help="torch.compile, too (default: once)")
    p.add_argument("--out", type=Path, help="the CSV (default: benchmarks/results/<device>.csv, or -part.csv)")
    p.add_argument("--figure", type=Path, help="the picture (default: docs/benchmark.png after a whole run)")
    a = p.parse_args(arguments)
    if a.quick and a.full:
        p.error("--quick and --full exclude each other")
    if a.rounds < 1 or min(a.threads or [1]) < 1:
        p.error("--rounds and --threads take numbers from 1 on")

    import torch

    import unifocal
    from unifocal.sums.engines import ENGINES

    if a.device == "cuda" and not torch.cuda.is_available():
        p.error("torch finds no CUDA device here")

    known = unifocal.available()
    a.every = known
    if a.losses == ["all"]:
        a.losses = known
    for given, names, what in ((a.losses, known, "loss"), (a.engines, ["auto", *ENGINES], "engine")):
        for name in given or ():
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                advice = f" Did you mean {close[0]!r}?" if close else ""
                p.error(f"there is no {what} named {name!r}.{advice} Known: {', '.join(names)}")
    chosen = (a.shapes, a.losses, a.engines, a.dtypes, a.labels, a.heaps, a.threads, a.peers)
    a.whole = not a.quick and all(c is None for c in chosen)
    a.engines = a.engines or {"cpu": ["native", "aten"], "cuda": ["triton"]}[a.device]

    name = f"{a.device}.csv" if a.whole else f"{a.device}-part.csv"
    a.out = a.out or HERE / "results" / name
    if a.figure is None and a.whole and a.device == "cpu":
        a.figure = FIGURE
    if a.quick:
        a.shapes = a.shapes or [MAIN, "2x1x96^3", "2x2x64^2"]
        a.losses = a.losses or list(FEWEST)
        a.heaps, a.threads = a.heaps or ["warm"], a.threads or [1]
        a.rounds = min(a.rounds, 3)
    a.shapes = a.shapes or list(SHAPES)
    return a


# ------------------------------------------------------------------------------------------------------ plan


def plan(a: argparse.Namespace) -> list[list[Row]]:
    """The cells, process by process."""
    if a.device == "cuda":
        settings = [("default", 1)]  # neither touches what runs on the device
    else:
        heaps = a.heaps or HEAPS
        if platform.libc_ver()[0] != "glibc":
            heaps = ["default"]  # the variables that make a heap warm are glibc's
        settings = [(h, t) for h in heaps for t in a.threads or (1, 2)]
        if a.heaps is None and a.threads is None and not a.full:
            settings.remove(("default", 2))
    return [[cell for shape in a.shapes for cell in cells(a, shape, *s, first=s == settings[0])] for s in settings]


def cells(a: argparse.Namespace, shape: str, heap: str, threads: int, first: bool) -> Iterator[Row]:
    """The kinds of input that one shape is measured on in one process, and what runs on each.

    first  is this the first process of the run?
    """
    sizes = shape_of(shape)
    voxel_classes = math.prod(sizes)
    if voxel_classes > HUGE and heap == "default" and a.device == "cpu" and not a.full:
        return
    kinds = [(d, y) for d in a.dtypes or DTYPES for y in a.labels or LABELS]
    if a.dtypes is None and a.labels is None and not a.full:
        most = (heap, threads) == ("warm", 1) or a.device == "cuda"
        if voxel_classes > HUGE:
            kinds = list(SOME[:1])
        elif a.device == "cuda" and shape != MAIN:
            kinds = list(SOME)
        elif voxel_classes > LARGE or (heap == "default" and a.device == "cpu"):
            kinds = list(SOME if most else SOME[:2])
        elif a.quick or not most:
            kinds = list(SOME)
    for dtype, labels in kinds:
        main = shape == MAIN and dtype == "float32" and (heap == "warm" or a.device == "cuda") and not a.quick
        everyone = a.full or (main and labels == "blob-int64")
        if a.losses or a.full or (main and labels.startswith("blob")):
            losses = a.losses or a.every
        else:
            losses = REPRESENTATIVE if voxel_classes <= HUGE else FEWEST
        yield {
            "name": shape,
            "shape": sizes,
            "dtype": dtype,
            "labels": labels,
            "heap": heap,
            "threads": threads,
            "device": a.device,
            "losses": list(losses),
            "engines": a.engines,
            "peers": a.peers or ("all" if everyone else "few"),
            "compiled": (main and labels == "blob-int64" and first) if a.compiled is None else a.compiled,
            "rounds": a.rounds,
            "seconds": 12 if main else 4,
        }


def title(cell: Row) -> str:
    plural = "" if cell["threads"] == 1 else "s"
    where = "" if cell["device"] == "cuda" else f"{cell['heap']} heap, {cell['threads']} thread{plural}, "
    return f"{where}{cell['name']} {cell['dtype']} {cell['labels']}"


# ------------------------------------------------------------------------------------------------- processes


def environment(heap: str, threads: int) -> dict[str, str]:
    """Heap and threads are settings of a process.

    warm   glibc neither maps single blocks nor gives memory back, so that no step pays for fresh pages; and keeps no
           small blocks aside, as those between large ones would let the heap grow without end
    exact  glibc gives every block back at once, so that the resident memory is what is in use
    """
    given = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    if heap == "warm":
        given |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
        given |= {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    elif heap == "exact":
        given |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return given | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def ask(cells: list[Row], heap: str) -> Iterator[Any]:
    """The answer to each cell, from a process of their own; None where the process died."""
    cells = list(cells)
    while cells:
        with tempfile.TemporaryFile("w+") as words:
            process = subprocess.Popen(
                [sys.executable, HERE / "measure.py"],
                env=environment(heap, cells[0]["threads"]),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
            )
            assert process.stdin and process.stdout
            try:
                process.stdin.write(json.dumps(cells))
                process.stdin.close()
                for line in process.stdout:
                    cells.pop(0)
                    yield json.loads(line)
                process.wait()
            finally:
                process.kill()
                process.wait()
            if cells:
                words.seek(0)
                last = "".join(words.read().strip().splitlines()[-1:])
                reason = "killed, for want of memory?" if process.returncode == -9 else last
                say(f"The process died ({process.returncode}) at {title(cells.pop(0))}: {reason}")
                yield None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(a: argparse.Namespace, rows: list[Row]) -> None:
    """Run the plan; what is measured goes into `rows` as it comes."""
    common = surroundings(a.device)
    processes = plan(a)
    weights = [math.prod(c["shape"]) * (len(c["losses"]) * len(c["engines"]) + 9) + 3e7 for p in processes for c in p]
    began, done = time.monotonic(), 0
    for process in processes:
        last = time.monotonic()
        for cell, answer in zip(process, ask(process, process[0]["heap"]) if process else (), strict=True):
            now = time.monotonic()
            done += 1
            for row in answer or [{"contender": "all", "skipped": "the process died"}]:
                inputs = {k: cell[k] for k in ("heap", "threads", "dtype", "labels")}
                rows.append({**common, **inputs, "shape": cell["name"], **row})
            left = (now - began) / sum(weights[:done]) * sum(weights[done:])
            minutes = f"about {left / 60:.0f} min left" if done < len(weights) else "done"
            say(f"[{done:3}/{len(weights)}] {title(cell)}: {now - last:.0f} s; {minutes}")
            last = now
    if a.device == "cpu" and sys.platform == "linux":
        residents(a, processes, rows)


def residents(a: argparse.Namespace, processes: list[list[Row]], rows: list[Row]) -> None:
    """The system's own figure for the memory of a few contenders, to check the allocator's."""
    cell = next((c for p in processes for c in p if c["name"] == MAIN and c["labels"] == "blob-int64"), None)
    names = ("F.cross_entropy", "unified-focal", "MONAI DiceCELoss", "MONAI DiceFocalLoss")
    for row in rows:
        if cell is None or row["contender"] not in names or row["mode"] != "eager" or "peak" not in row:
            continue
        if all(row[k] == cell[k] for k in ("heap", "threads", "dtype", "labels")) and row["shape"] == MAIN:
            say(f"Resident memory of {row['contender']} ({row['engine']})")
            wanted = {**cell, "resident": [row["contender"], row["engine"], "eager"]}
            row["peak_rss"] = next(ask([wanted], "exact"))


def surroundings(device: str) -> Row:
    """What a figure depends on besides the code."""
    import torch

    if device == "cuda":
        hardware = torch.cuda.get_device_name()
    else:
        hardware = f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": hardware,
        "torch": torch.__version__,
        "device": device,
    }


def processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def commit() -> str:
    """Short name of the commit, with -dirty if files differ from it."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# ---------------------------------------------------------------------------------------------------- output


def write(rows: list[Row], path: Path) -> None:
    """The CSV, four significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as f:
        out = csv.DictWriter(f, COLUMNS)
        out.writeheader()
        for row in rows:
            out.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def main(arguments: list[str] | None = None) -> int:
    a = options(arguments)
    rows: list[Row] = []
    began = time.monotonic()
    stopped = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cut off keeps what it has measured
    try:
        measure(a, rows)
    except KeyboardInterrupt:
        stopped = True
        a.out = a.out.with_name(f"{a.out.stem.removesuffix('-part')}-stopped.csv")
    write(rows, a.out)
    print(report(rows))
    say(f"\n{a.out}: {len(rows)} rows in {(time.monotonic() - began) / 60:.1f} min")
    if stopped:
        say("Stopped: the file holds the cells that were finished. The same command starts afresh.")
        return 130
    if a.figure:
        if find_spec("matplotlib") is None:
            say("No figure: matplotlib is not installed.")
        else:
            draw(rows, a.figure)
            say(str(a.figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())

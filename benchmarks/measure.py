"""One process of the benchmark. A request comes on standard input as JSON, an answer goes out for each of its cells.

A cell is one shape, dtype and kind of labels. All its contenders run in the same process, in an order shuffled anew
each round, each right after the floor; what is reported is the median of those pairs' quotients. `losses.py` starts
the processes, one for each heap and number of threads, because both are settings of a process.
"""

import gc
import importlib.util
import json
import math
import os
import random
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor, Tensor], object]

SLOW = 5  # contenders that take this many times the floor are measured in FEW rounds: their digits decide nothing
FEW = 3
TICK = 1e-3  # seconds: what is shorter is repeated, so that a pair lasts long enough to be compared
MOST = 14  # logits sizes: what inputs and the hungriest contender take together
MARK = "benchmark: here a forward or a backward begins"


class Contender(NamedTuple):
    """Something to measure. It is made when its turn comes, as its library may be missing."""

    name: str
    kind: str  # "floor", "ours", "peer", or "sums": our voxel kernels alone
    engine: str  # ours: the engine; the others: the library and its version
    make: Callable[[], Loss]
    mode: str = "eager"


# ---------------------------------------------------------------------------------------------------- inputs


def inputs(shape: list[int], dtype: str, labels: str, device: str) -> tuple[Tensor, Tensor]:
    """Random logits, and labels of a kind: "blob-uint8", "blob-int64", "shuffled-uint8", "shuffled-int64", "soft"."""
    g = torch.Generator().manual_seed(0)
    n, channels, *spatial = shape
    y = torch.zeros((n, *spatial), dtype=torch.uint8)
    for image in y:  # a box for each foreground class, a quarter of each axis long
        for c in range(1, max(channels, 2)):
            corner = [int(torch.randint(0, s - s // 4 + 1, (), generator=g)) for s in spatial]
            image[tuple(slice(a, a + max(1, s // 4)) for a, s in zip(corner, spatial, strict=True))] = c
    kind, _, integer = labels.partition("-")
    if kind == "shuffled":
        y = y.flatten(1)[:, torch.randperm(math.prod(spatial), generator=g)].view_as(y)
    if kind == "soft":
        if channels == 1:
            y = 0.8 * y[:, None] + 0.2 * torch.rand(shape, generator=g)
        else:
            y = 0.2 * torch.rand(shape, generator=g).softmax(1) + 0.8 * F.one_hot(y.long(), channels).movedim(-1, 1)
        y = y.contiguous()
    else:
        y = y.to(getattr(torch, integer))
    x = torch.randn(shape, generator=g).to(getattr(torch, dtype))
    return x.to(device).requires_grad_(), y.to(device)


# ------------------------------------------------------------------------------------------------ contenders


def floor(channels: int, soft: bool) -> Contender:
    """What everything is compared with. Casting the labels to what it takes is part of its time."""
    engine = f"torch {torch.__version__}"
    if channels == 1:

        def bce(x: Tensor, y: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(x, y if soft else y[:, None].to(x.dtype))

        return Contender("F.binary_cross_entropy_with_logits", "floor", engine, lambda: bce)

    def ce(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x, y if soft else y.long())

    return Contender("F.cross_entropy", "floor", engine, lambda: ce)


def ours(losses: list[str], engines: list[str]) -> list[Contender]:
    """Every loss with every engine, as a user builds it."""

    def maker(name: str, engine: str) -> Callable[[], Loss]:
        def make() -> Loss:
            import unifocal

            return unifocal.build(name, engine=engine)

        return make

    return [Contender(name, "ours", engine, maker(name, engine)) for engine in engines for name in losses]


def kernels(engine: str, channels: int, soft: bool) -> Contender:
    """The voxel kernels of an engine without the algebra around them."""

    def make() -> Loss:
        from unifocal.sums.engines import ENGINES
        from unifocal.sums.form import Form

        form = Form("sigmoid" if channels == 1 else "softmax", ("tp", "fp", "fn", "ce"), None, False)
        gammas: dict[torch.device, Tensor] = {}

        def run(x: Tensor, y: Tensor) -> Tensor:
            gamma = gammas.setdefault(x.device, torch.zeros(1, 1, device=x.device))
            rest = (y.flatten(2 if soft else 1), None, gamma, gamma, form)
            flat = x.detach().flatten(2)
            if reason := ENGINES[engine].why_not(flat, rest[0], None, form):
                raise RuntimeError(reason)
            values = ENGINES[engine].forward(flat, *rest)[0]
            return ENGINES[engine].backward(values, flat, *rest)

        return run

    return Contender("voxel kernels", "sums", engine, make)


def peers(channels: int, soft: bool, everyone: bool) -> list[Contender]:
    """The losses of other libraries, called as their documentation says; nothing of them is copied here."""
    multi = channels > 1
    found = []

    def add(package: str, name: str, make: Callable[[], Loss], title: str) -> None:
        try:
            engine = f"{package} {version(package)}"
        except importlib.metadata.PackageNotFoundError:
            engine = package
        found.append(Contender(f"{title} {name}", "peer", engine, make))

    def monai(name: str, **arguments: Any) -> None:
        def make() -> Loss:
            loss = getattr(import_module("monai.losses"), name)(**arguments)
            return lambda x, y: loss(x, y if soft else y[:, None])

        add("monai", name, make, "MONAI")

    activation = {"softmax": True, "to_onehot_y": not soft} if multi else {"sigmoid": True}
    monai("DiceCELoss", **activation)
    monai("DiceFocalLoss", **activation)
    if everyone:
        monai("DiceLoss", **activation)
        monai("FocalLoss", to_onehot_y=multi and not soft, use_softmax=multi)
        monai("TverskyLoss", alpha=0.3, beta=0.7, **activation)
        monai("GeneralizedDiceLoss", **activation)
    if soft:
        return found  # the others take class indices only

    def nnunet(dice: str) -> Loss:
        compound = import_module("nnunetv2.training.loss.compound_losses")
        of = getattr(import_module("nnunetv2.training.loss.dice"), dice)
        region = {"batch_dice": False, "smooth": 1e-5, "do_bg": not multi, "ddp": False}
        if multi:
            loss = compound.DC_and_CE_loss(region, {}, dice_class=of)
        else:
            loss = compound.DC_and_BCE_loss({}, region, dice_class=of)
        return lambda x, y: loss(x, y[:, None])

    title = f"DC_and_{'CE' if multi else 'BCE'}_loss"
    add("nnunetv2", title, lambda: nnunet("MemoryEfficientSoftDiceLoss"), "nnU-Net")
    if not everyone:
        return found
    add("nnunetv2", f"{title}, SoftDice", lambda: nnunet("SoftDiceLoss"), "nnU-Net")

    def smp(name: str, **arguments: Any) -> None:
        def make() -> Loss:
            package = "segmentation_models_pytorch"
            if package not in sys.modules:  # the package itself wants torchvision, its losses do not
                spec = importlib.util.find_spec(package)
                if spec is None:
                    raise ModuleNotFoundError(f"No module named {package!r}")
                sys.modules[package] = types.ModuleType(package)
                sys.modules[package].__path__ = list(spec.submodule_search_locations or ())
            loss = getattr(import_module(f"{package}.losses"), name)("multiclass" if multi else "binary", **arguments)
            return lambda x, y: loss(x, y.long())

        add("segmentation-models-pytorch", name, make, "SMP")

    smp("DiceLoss")
    smp("FocalLoss")
    smp("TverskyLoss", alpha=0.3, beta=0.7)

    def kornia(name: str, call: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        def make() -> Loss:
            function = getattr(import_module("kornia.losses"), name)
            return lambda x, y: call(function, *as_image(x, y))

        add("kornia", name, make, "kornia")

    def as_image(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Its region losses take (B, C, H, W) only; a volume is read as a tall image."""
        return x.flatten(2, -2), y.long().flatten(1, -2)

    if multi:
        kornia("dice_loss", lambda f, x, y: f(x, y, average="macro"))
        kornia("tversky_loss", lambda f, x, y: f(x, y, alpha=0.3, beta=0.7))
        kornia("focal_loss", lambda f, x, y: f(x, y, alpha=None, gamma=2.0, reduction="mean"))
    else:
        name = "binary_focal_loss_with_logits"
        kornia(name, lambda f, x, y: f(x, y[:, None].to(x.dtype), alpha=0.25, gamma=2.0, reduction="mean"))
    return found


def compiled(contender: Contender) -> Contender:
    """The same under torch.compile."""
    return contender._replace(mode="compiled", make=lambda: torch.compile(contender.make()))


def contenders(cell: dict[str, Any]) -> list[Contender]:
    """Everything that runs in a cell, the floor first."""
    channels, soft = cell["shape"][1], cell["labels"] == "soft"
    own = ours(cell["losses"], cell["engines"])
    others = peers(channels, soft, cell["peers"] == "all") if cell["peers"] != "none" else []
    found = [floor(channels, soft), *own, *others]
    if cell["compiled"]:
        found += [compiled(c) for c in found if c.name in ("unified-focal", "MONAI DiceCELoss")]
    if cell["device"] == "cuda":
        found += [kernels(engine, channels, soft) for engine in cell["engines"]]
    return found


# ---------------------------------------------------------------------------------------------------- clocks


def step(loss: Loss, x: Tensor, y: Tensor) -> None:
    """Forward and backward, with the gradient to the logits only."""
    torch.autograd.grad(loss(x, y), x)


class Sample(NamedTuple):
    """One measurement, in seconds."""

    time: float
    wall: float
    faults: int  # pages that the system had to supply


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def on_cpu(run: Step, x: Tensor, y: Tensor, repeat: int, own_clock: bool) -> Sample:
    """With one thread the CPU's clock counts, which other programs disturb least; with more, the one on the wall."""
    faults, cpu, wall = page_faults(), time.process_time(), time.perf_counter()
    for _ in range(repeat):
        run(x, y)
    wall, cpu = (time.perf_counter() - wall) / repeat, (time.process_time() - cpu) / repeat
    return Sample(cpu if own_clock else wall, wall, (page_faults() - faults) // repeat)


class Cuda:
    """The device's own time from a queue that is never empty and a cache that is; and the wall's, launches included."""

    def __init__(self) -> None:
        self.flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")

    def __call__(self, run: Step, x: Tensor, y: Tensor, repeat: int, own_clock: bool) -> Sample:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(10_000_000)  # about 5 milliseconds in which the launches get ahead
        self.flush.zero_()
        start.record()
        run(x, y)
        end.record()
        torch.cuda.synchronize()
        wall = time.perf_counter()
        run(x, y)
        torch.cuda.synchronize()
        return Sample(start.elapsed_time(end) / 1e3, time.perf_counter() - wall, 0)


def copy_bandwidth(device: str) -> float:
    """Bytes read and written per second by a copy of a large tensor."""
    source = torch.ones(2**28 if device == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(6):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            target.copy_(source)
            end.record()
            torch.cuda.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            target.copy_(source)
            best = min(best, time.perf_counter() - began)
    return 2 * source.numel() * source.element_size() / best


# ---------------------------------------------------------------------------------------------------- memory


def allocations(losses: list[Loss], x: Tensor, y: Tensor) -> list[tuple[int, int]]:
    """For each loss the peak of the bytes allocated during a step, and those alive between forward and backward."""
    gc.collect()
    if x.is_cuda:
        return [allocated_on_device(loss, x, y) for loss in losses]
    found = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as p:
        for loss in losses:  # in one session, as starting one takes longer than many a step
            with torch.profiler.record_function(MARK):
                pass
            value = loss(x, y)
            with torch.profiler.record_function(MARK):
                pass
            torch.autograd.grad(value, x)
            del value
    events = p.profiler.kineto_results.events()
    marks = sorted(e.start_ns() for e in events if e.name() == MARK)
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    for begin, middle, end in zip(marks[::2], marks[1::2], [*marks[2::2], math.inf], strict=True):
        now = peak = held = 0
        for when, size in sizes:
            if begin <= when < end:
                now += size
                peak = max(peak, now)
                held = now if when <= middle else held
        found.append((peak, held))
    return found


def allocated_on_device(loss: Loss, x: Tensor, y: Tensor) -> tuple[int, int]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    value = loss(x, y)
    held = torch.cuda.memory_allocated() - before
    torch.autograd.grad(value, x)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, held


def saved_tensors(loss: Loss, x: Tensor, y: Tensor) -> int:
    """A step, and how many voxel-sized tensors it saves for backward that are neither the logits nor the labels."""
    voxels = x.numel() // x.shape[1]
    given = {t.untyped_storage().data_ptr() for t in (x, y)}
    saved: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        if t.numel() >= voxels and t.untyped_storage().data_ptr() not in given:
            saved[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value = loss(x, y)
    torch.autograd.grad(value, x)
    return len(saved)


def status(key: str) -> int:
    """A figure of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def resident(cell: dict[str, Any]) -> float:
    """Peak of the resident memory of one step in a fresh process, over what was there before, in logits sizes."""
    (contender,) = [c for c in contenders(cell) if [c.name, c.engine, c.mode] == cell["resident"]]
    loss = contender.make()
    small = [*cell["shape"][:2], *(8 for _ in cell["shape"][2:])]
    step(loss, *inputs(small, cell["dtype"], cell["labels"], "cpu"))
    x, y = inputs(cell["shape"], cell["dtype"], cell["labels"], "cpu")
    gc.collect()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step(loss, x, y)
    return (status("VmHWM") - before) / (x.numel() * x.element_size())


# ----------------------------------------------------------------------------------------------------- cells


def logits_size(cell: dict[str, Any]) -> int:
    """Bytes of the logits."""
    return math.prod(cell["shape"]) * getattr(torch, cell["dtype"]).itemsize


def measure(cell: dict[str, Any], bandwidth: float) -> list[dict[str, Any]]:
    """A row for each contender of the cell."""
    size = logits_size(cell)
    x, y = inputs(cell["shape"], cell["dtype"], cell["labels"], cell["device"])
    clock = Cuda() if cell["device"] == "cuda" else on_cpu
    own_clock = cell["threads"] == 1
    bytes_needed = 3 * size + 2 * y.numel() * y.element_size()

    rows: list[dict[str, Any]] = []
    running: list[tuple[Contender, Loss, dict[str, Any]]] = []
    for c in contenders(cell):
        row: dict[str, Any] = {"contender": c.name, "kind": c.kind, "engine": c.engine, "mode": c.mode}
        rows.append(row)
        try:
            loss = c.make()
            if c.kind == "sums":
                loss(x, y)
            else:
                row["kept_tensors"] = saved_tensors(loss, x, y)
            running.append((c, loss, row))
        except Exception as error:  # whatever a library's reason, the others are measured
            row["skipped"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not running or running[0][0].kind != "floor":
        return rows

    stored = [(loss, row) for c, loss, row in running if c.kind != "sums"]
    for (_, row), (peak, held) in zip(stored, allocations([loss for loss, _ in stored], x, y), strict=True):
        row |= {"peak": peak / size, "kept": held / size}
        row["peak_method"] = "device allocator" if x.is_cuda else "allocator events"

    # The bare kernels do their own backward.
    runs: list[Step] = [loss if c.kind == "sums" else partial(step, loss) for c, loss, _ in running]
    repeat = max(1, min(50, int(TICK / clock(runs[0], x, y, 1, own_clock).wall)))
    rounds = cell["rounds"] * (5 if x.is_cuda else 1)
    pairs: list[list[tuple[Sample, Sample]]] = [[] for _ in runs]
    began = time.perf_counter()
    for r in range(rounds):
        if r >= FEW and time.perf_counter() - began > cell["seconds"]:
            break
        gc.collect()
        for i in random.Random(r).sample(range(len(runs)), len(runs)):
            if r < FEW or min(a.time / b.time for a, b in pairs[i]) < SLOW:
                base = clock(runs[0], x, y, repeat, own_clock)
                pairs[i].append((clock(runs[i], x, y, repeat, own_clock), base))

    for i, (_, _, row) in enumerate(running):
        quotients = [a.time / b.time for a, b in pairs[i]]
        quarters = statistics.quantiles(quotients, method="inclusive") if len(quotients) > 1 else [0.0, 0.0, 0.0]
        seconds = statistics.median(a.time for a, _ in pairs[i])
        row |= {
            "rounds": len(quotients),
            "clock": "device" if x.is_cuda else "cpu" if own_clock else "wall",
            "time_ms": seconds * 1e3,
            "ratio": statistics.median(quotients),
            "ratio_iqr": quarters[2] - quarters[0],
            "wall_ms": statistics.median(a.wall for a, _ in pairs[i]) * 1e3,
            "wall_ratio": statistics.median(a.wall / b.wall for a, b in pairs[i]),
            "page_faults": int(statistics.median(a.faults for a, _ in pairs[i])),
            "gb_per_s": bytes_needed / seconds / 1e9,
            "copy_gb_per_s": bandwidth / 1e9,
        }
    return rows


def free_memory() -> float:
    """Bytes that can be had without swapping, as far as the system says."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return math.inf


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    warnings.simplefilter("ignore")
    cells = json.load(sys.stdin)
    torch.set_num_threads(cells[0]["threads"])
    room = free_memory() if cells[0]["device"] == "cpu" else math.inf
    needed = {i: MOST * logits_size(cell) for i, cell in enumerate(cells)}
    if cells[0]["heap"] == "warm" and "resident" not in cells[0]:
        # Once, for the largest: blocks that come and go while small ones stay would leave a heap that grows.
        torch.ones(max((n for n in needed.values() if n < room), default=0), dtype=torch.uint8)
    bandwidth = copy_bandwidth(cells[0]["device"]) if "resident" not in cells[0] else 0.0
    for i, cell in enumerate(cells):
        answer: Any
        if "resident" in cell:
            answer = resident(cell)
        elif needed[i] < room:
            answer = measure(cell, bandwidth)
        else:
            answer = [{"contender": "all", "skipped": f"needs about {needed[i] / 2**30:.0f} GiB of free memory"}]
        print(json.dumps(answer), file=answers, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()

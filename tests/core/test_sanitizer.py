"""The native engine under AddressSanitizer and UndefinedBehaviorSanitizer: no byte beyond a tensor, nothing undefined.

The library is compiled once more with both, and a child process that has their runtime calls it with tensors that end
where their memory ends. That the sanitizers would see a step beyond is shown on tensors whose memory is cut short.
"""

import itertools
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unifocal.sums import native
from unifocal.sums.form import Form, MaskExponent

pytestmark = pytest.mark.slow

SOURCES = [str(source) for source in (Path(__file__).parents[2] / "src/unifocal/sums/cpu").glob("*.cpp")]
CHECKS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
# -O1 keeps the compiler from merging the accesses that are to be seen, and compiles in half the time
FLAGS = ["-O1", "-std=c++17", "-ffp-contract=fast", "-Wno-psabi", "-shared", "-fPIC", "-g1"]
REPORTED = 77  # what a process ends with that the sanitizers have stopped

SIX = ("tp", "fp", "fn", "tn", "ce", "rest")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16),
    *(torch.uint32, torch.int32, torch.uint64, torch.int64),
)
CHANNELS = (1, 2, 3, 4, 5, 17, 105)
VOXELS = (0, 1, 15, 16, 17, 511, 512, 513, 8191, 8193)
MANY = 100_000  # voxel-classes of a call that is not made in every variant, for the sake of time


# --- in the child: tensors without slack -----------------------------------------------------------------------------


def contiguous(t: Tensor) -> Tensor:
    return t.clone()


def channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)


def last_channels(t: Tensor) -> Tensor:
    """Those of more, the last of which ends where the memory ends."""
    return torch.cat([t[:, :1], t], 1)[:, 1:]


def last_voxels(t: Tensor) -> Tensor:
    return torch.cat([t[..., :1], t], -1)[..., 1:] if t.numel() else t


def every_other_voxel(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, -1)[..., 1:].clone()[..., ::2] if t.numel() else t


def one_image_for_all(t: Tensor) -> Tensor:
    return t[:1].clone().expand_as(t)


def one_voxel_for_all(t: Tensor) -> Tensor:
    return t[..., :1].clone().expand_as(t) if t.numel() else t


LAYOUTS = (
    *(contiguous, contiguous, contiguous, channels_last, last_channels, last_voxels, every_other_voxel),
    *(one_image_for_all, one_voxel_for_all),
)
WITHOUT_CHANNELS = tuple(f for f in LAYOUTS if f not in (channels_last, last_channels))


def numbers(shape: tuple[int, ...], dtype: torch.dtype, classes: int, foreign: bool = False) -> Tensor:
    """Labels or weights: of a float dtype in [0, 1], else classes, on request with some from the ends of the dtype."""
    if dtype.is_floating_point:
        return torch.rand(shape).to(dtype)
    found = torch.randint(0, classes, shape).clamp_max(1 if dtype == torch.bool else 127)
    if foreign and dtype != torch.bool:
        limits = torch.iinfo(dtype)
        beyond = torch.tensor([limits.min, min(limits.max, 2**63 - 1), classes, -1])
        found = beyond[torch.randint(0, 4, shape)].where(torch.rand(shape) < 0.3, found)
    return found.to(dtype)


def laid_out(layout: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """In that layout, which PyTorch cannot make of every dtype."""
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}.get(t.dtype, t.dtype)
    return layout(t.view(signed)).view(t.dtype)


def exponents(n: int, k: int, dtype: torch.dtype, choose: random.Random) -> Tensor:
    shape = choose.choice([(), (1,), (k,), (n, 1), (n, k), (1, k)])
    return torch.tensor([0.0, 0.5, 2.0, 1.0, 0.1])[torch.randint(0, 5, shape)].to(dtype)


def report(*call: object) -> None:
    """Says what comes next, for the case that it is the last."""
    print("next:", *call, flush=True)


def call_sums(
    isa: int, activation: str, n: int, k: int, v: int, dtype: torch.dtype, of_labels: torch.dtype, choose: random.Random
) -> None:
    """One forward and one backward; what is not said is chosen."""
    dense = of_labels.is_floating_point or choose.random() < 0.3
    logits = torch.randn(n, k, v) * choose.choice([1, 30])
    x = choose.choice(LAYOUTS)((logits if activation != "none" else logits.sigmoid()).to(dtype))
    given = numbers((n, k, v) if dense else (n, v), of_labels, 2 if dense else max(k, 2), choose.random() < 0.5)
    labels = laid_out(choose.choice(LAYOUTS if dense else WITHOUT_CHANNELS), given)
    weights = None
    if choose.random() < 0.5:
        weights = laid_out(choose.choice(WITHOUT_CHANNELS), numbers((n, v), choose.choice(FLOATS + INTEGERS), 3))
    ignore = choose.choice([None, None, 0, 255, -(2**63), 2**63 - 1])
    wanted = ("ce", "rest") if choose.random() < 0.2 else tuple(choose.sample(SIX, choose.randint(1, 6)))
    form = Form(activation, wanted, None if of_labels.is_floating_point else ignore, choose.random() < 0.5)
    arithmetic = torch.promote_types(dtype, torch.float32)
    gammas = exponents(n, k, arithmetic, choose), exponents(n, k, arithmetic, choose)
    upstream = choose.choice(LAYOUTS)(torch.randn(len(wanted), n, k).to(arithmetic))

    report(native.INSTRUCTIONS[isa], (n, k, v), dtype, of_labels, "dense" if dense else "", form, x.stride())
    native.forward(x, labels, weights, *gammas, form)
    native.backward(upstream, x, labels, weights, *gammas, form)


def call_masks(
    isa: int, shape: tuple[int, ...], k: int, of_labels: torch.dtype, dtype: torch.dtype, choose: random.Random
) -> None:
    n, dense = choose.choice([1, 2]), of_labels.is_floating_point or choose.random() < 0.3
    full = (n, k, *shape) if dense else (n, *shape)
    padding = choose.choice([0, 0, 1])
    padded = (*full[: len(full) - len(shape)], *(size + padding for size in shape))
    inner: Any = (..., *(slice(padding, None) for _ in shape))  # of a larger volume, up to its end
    labels = numbers(padded, of_labels, 2 if dense else max(k, 2), choose.random() < 0.5)[inner]
    if not dense and choose.random() < 0.2:
        labels = labels[:1].clone().expand(full)
    weights = None
    if choose.random() < 0.5:
        weights = numbers((n, *padded[len(full) - len(shape) :]), choose.choice(FLOATS + INTEGERS), 3)[inner]
    ignore = choose.choice([None, None, 0, 255, -(2**63), 2**63 - 1])
    steps = [choose.choice([1.0, 0.3]) for _ in shape]

    report("masks", native.INSTRUCTIONS[isa], full, of_labels, dtype, ignore, labels.stride(), weights is not None)
    ignore = None if of_labels.is_floating_point else ignore
    native.masks(labels, weights, k, dense, ignore, steps, dtype)

    x, form = torch.randn(n, k, math.prod(shape), dtype=dtype), Form("sigmoid", ("ce", "rest"), ignore, False)
    gamma = torch.empty(n, k, dtype=dtype)
    of_masks = MaskExponent(labels, weights, k, dense, ignore, tuple(steps), 1.0, 0.5, 0.1)
    inputs = x, labels.flatten(2 if dense else 1), None if weights is None else weights.flatten(1), gamma, gamma, form
    native.forward(*inputs, of_masks=of_masks)
    native.backward(torch.randn(2, n, k, dtype=dtype), *inputs)


def call_mean(n: int, k: int, classes: int, parts: int, dtype: torch.dtype, choose: random.Random) -> None:
    shape = classes, n, k

    def factors() -> Tensor:
        return torch.rand([choose.choice([1, size]) for size in shape][choose.choice([0, 0, 1, 2]) :], dtype=dtype)

    entropy = parts != 1
    sums = torch.rand(classes * entropy + (classes + 2) * (parts > 0), n, k, dtype=dtype)
    labelled, voxels = torch.rand(n, k, dtype=dtype), torch.rand(n, 1, dtype=dtype)
    weights = torch.rand(classes, 1, k, dtype=dtype)
    regions = [(factors(), factors(), 0.3, 1.0, 1e-6, choose.random() < 0.5) for _ in range(parts)]
    report("mean", shape, parts, dtype)
    reduction = choose.choice(["none", "sum", "mean"])
    native.mean(sums, labelled, voxels, reduction, weights, 0.5, factors() if entropy else None, regions)


SHAPES: tuple[tuple[int, ...], ...] = (
    *((1,), (2,), (15,), (16,), (17,), (513,), (8193,), (40_000,)),
    *((1, 1), (1, 17), (17, 1), (2, 2), (3, 16), (5, 17), (33, 31), (200, 171)),
    *((1, 1, 1), (1, 1, 33), (1, 5, 1), (33, 1, 1), (2, 3, 1), (1, 4, 17), (5, 1, 16), (3, 4, 5), (7, 6, 65)),
    *((0,), (3, 0), (2, 0, 4), (33, 32, 32)),
)


def use(library: str) -> int:
    """Let the engine use that library, two threads where a call is large; the number of instruction sets."""
    native.LIBRARY = Path(library)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    return native.instructions() + 1


def choose_instructions(isa: int) -> None:
    native.instructions = lambda: isa  # type: ignore[assignment]


def call_everything(library: str) -> None:
    choose = random.Random(0)
    for isa in range(use(library)):
        choose_instructions(isa)
        for activation in ("softmax", "sigmoid", "none"):
            for k in CHANNELS:
                for v in VOXELS:
                    dtype, of_labels = choose.choice(FLOATS), choose.choice(FLOATS + INTEGERS * 2)
                    n = choose.choice([1, 2]) if k * v < MANY else 1
                    call_sums(isa, activation, n, k, v, dtype, of_labels, choose)
            for dtype in FLOATS:
                for of_labels in FLOATS + INTEGERS:
                    n, k, v = choose.choice([0, 1, 3]), choose.choice(CHANNELS), choose.choice(VOXELS[:8])
                    call_sums(isa, activation, n, k, v, dtype, of_labels, choose)
        for shape in SHAPES:
            for k in (1, 2, 3, 5) if math.prod(shape) < MANY / 4 else (3,):
                for dtype in (torch.float32, torch.float64):
                    call_masks(isa, shape, k, choose.choice(FLOATS + INTEGERS * 2), dtype, choose)
        for of_labels in FLOATS + INTEGERS:
            call_masks(isa, (3, 5, 18), 3, of_labels, torch.float32, choose)
    for n in (0, 1, 3):
        for k in CHANNELS:
            for classes, parts, dtype in itertools.product((1, 2), (0, 1, 2), (torch.float32, torch.float64)):
                call_mean(n, k, classes, parts, dtype, choose)
    print("all done")


# --- in the child: that a step beyond is seen ------------------------------------------------------------------------


def cut_short(t: Tensor) -> Tensor:
    """The tensor, its memory ending a byte before its last number does."""
    cut = t.clone(memory_format=torch.contiguous_format)
    cut.untyped_storage().resize_(cut.numel() * cut.element_size() - 1)
    return cut


def too_short(victim: str) -> None:
    """A call in which one tensor is too short, or does not lie where its numbers must."""
    x, labels, weights, gamma = torch.randn(1, 3, 500), torch.randint(0, 3, (1, 500)), torch.rand(1, 500), torch.ones(3)
    upstream, form = torch.randn(6, 1, 3), Form("softmax", SIX, None, False)
    given = {"x": x, "labels": labels, "weights": weights, "upstream": upstream}
    if victim in given:
        given[victim] = cut_short(given[victim])
    elif victim == "alignment":
        gamma = torch.frombuffer(bytearray(16), dtype=torch.float32, count=3, offset=1)
    call: Any = given["x"], given["labels"], given["weights"], gamma, gamma, form
    if victim == "masks":
        native.masks(cut_short(x.view(1, 3, 5, 10, 10)), None, 3, True, None, [1.0] * 3, torch.float32)
    elif victim == "upstream":
        native.backward(given["upstream"], *call)
    elif victim == "gradient":
        torch.empty_like = cut_short  # type: ignore[assignment]
        native.backward(upstream, *call)
    else:
        native.forward(*call)


VICTIMS = ("x", "labels", "weights", "upstream", "gradient", "masks", "alignment")


def step_beyond(library: str) -> None:
    """Each victim in a process of its own, which has to end by a report."""
    for isa in range(use(library)):
        choose_instructions(isa)
        for victim in ("nobody", *VICTIMS):
            child = os.fork()
            if not child:
                torch.set_num_threads(1)
                too_short(victim)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            outcome = {0: "quiet", REPORTED: "reported"}.get(os.waitstatus_to_exitcode(status), "failed")
            print(f"{native.INSTRUCTIONS[isa]}, {victim}: {outcome}", flush=True)


# --- the tests -------------------------------------------------------------------------------------------------------


def runtime(compiler: str, name: str) -> str | None:
    """Where the compiler has that library, if it does."""
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    return path if Path(path).is_absolute() else None


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Callable[[Callable[[str], None]], subprocess.CompletedProcess[str]]:
    """Runs a function of this file in a child process, with the library compiled under the sanitizers."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    # the C++ runtime too: the sanitizer must find its exceptions before torch brings them
    preloaded = [runtime(compiler, name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    if None in preloaded:
        pytest.skip("g++ came without libasan and libubsan")
    library = str(tmp_path_factory.mktemp("sanitized") / "native.so")
    for openmp in (["-fopenmp"], []):
        command = [compiler, *FLAGS, *CHECKS, *openmp, *SOURCES, "-o", library]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode == 0:
            break
    assert compiled.returncode == 0, compiled.stderr

    def run(function: Callable[[str], None]) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "LD_PRELOAD": " ".join(str(path) for path in preloaded),
            "ASAN_OPTIONS": f"detect_leaks=0:exitcode={REPORTED}",  # Python itself frees little at its end
            "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={REPORTED}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        }
        code = f"import {Path(__file__).stem} as here; here.{function.__name__}({library!r})"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)

    return run


def test_a_step_beyond_a_tensor_would_be_seen(sanitized):
    """Else the test below would prove nothing."""
    done = sanitized(step_beyond)
    assert done.returncode == 0, done.stderr[-5000:]
    found = dict(line.split(": ") for line in done.stdout.splitlines())
    assert found and len(found) % (1 + len(VICTIMS)) == 0
    for who, outcome in found.items():
        assert outcome == ("quiet" if who.endswith("nobody") else "reported"), f"{who}\n{done.stderr[-5000:]}"
    assert "heap-buffer-overflow" in done.stderr and "misaligned address" in done.stderr


def test_no_call_steps_beyond_a_tensor(sanitized):
    done = sanitized(call_everything)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{last}\n{done.stderr[:10_000]}"
    assert last == ["all done"]

"""The engine for CUDA: kernels in Triton, two launches forward, one backward, two for masks; only results are kept.

triton_kernels.py holds them. With TRITON_INTERPRET=1 in the environment they run on a CPU too, slowly: for tests.
"""

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .constants import constant
from .form import Form
from .labels import signed
from .tracing import has_memory

# How a tile is cut, by its channels: (groups of voxels, voxels in a group, warps). That is 4 to 8 numbers for a thread,
# as more would spill from its registers; with up to 4 channels a thread holds all of a voxel and adds over them alone.
TILES = {1: (128, 4, 4), 2: (128, 4, 4), 4: (128, 2, 4), 8: (64, 2, 4), 16: (16, 4, 4), 32: (16, 4, 8), 64: (8, 4, 8)}
CHUNK = 32  # channels of a tile where there are more than any tile holds
PROGRAMS = 1024  # keep a large GPU busy; beyond that each program takes several tiles, so that there is less to add up
STEPS = 16  # tiles of a program at most
WIDTH = 1024  # partial sums added at a time

# A tile of masks: its voxels at most, and its voxels times channels. Dense labels take more registers.
MASK_VOXELS = 256
MASK_NUMBERS, MASK_NUMBERS_DENSE = 2048, 512

_SUMS = ("tp", "fp", "fn", "tn", "ce", "rest")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INDICES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _is_too_old(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) < (7, 0)


def detail() -> str:
    """Its version, or where it comes from."""
    return f"Triton {version('triton')}" if _is_installed() else "Triton, which comes with PyTorch for CUDA"


def why_not(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form | None) -> str | None:
    """The reason why this engine cannot serve such a call, if any."""
    if form is None and x.ndim > 5:
        return f"its masks have up to 3 spatial axes, and the labels have {x.ndim - 2}"
    tensors = [x, labels] if weights is None else [x, labels, weights]
    dense = labels.ndim == x.ndim
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if x.device.type != "cuda" and not (interpreted and x.device.type == "cpu"):
        return f"the tensors are on {x.device.type}; it serves cuda"
    if not _is_installed():
        return "the package triton is not installed"
    if not has_memory(*tensors):
        return "it cannot run inside torch.func"
    if any(t.device != x.device for t in tensors):
        return "the tensors are on different devices"
    if x.device.type == "cuda" and _is_too_old(x.device):
        return "the GPU's compute capability is below 7.0"
    if form is not None and x.dtype not in _FLOATS:
        return f"the logits are {x.dtype}"
    if labels.dtype not in (_INDICES + _FLOATS if dense else _INDICES):
        return f"the labels are {labels.dtype}"
    if weights is not None and weights.dtype not in _INDICES + _FLOATS:
        return f"the voxel weights are {weights.dtype}"
    if form is not None and x.numel() == 0:
        return "there are no voxels"
    return None


def forward(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """`values` (S, N, K), `labelled` (N, K) and `voxels` (N, 1) of `VoxelSums`."""
    from . import triton_kernels as kernels

    n, k, v = x.shape
    s = len(form.wanted)
    plan = _plan(n, k, v)
    kept: dict[str, Any] = {"dtype": gamma.dtype, "device": x.device}
    values, labelled, voxels = torch.empty(s, n, k, **kept), torch.empty(n, k, **kept), torch.empty(n, 1, **kept)
    partial = torch.empty(n, (s + 1) * k + 1, plan.blocks, **kept)
    (tensors, sizes), meta = _common(x, labels, weights, gamma, rest_gamma, form, plan)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.partial_sums[(n * plan.blocks,)](
            *tensors, partial, v, plan.blocks, plan.steps, *sizes, S=s, CLIP=form.clip, **meta
        )
        kernels.add_up[(n * ((s + 1) * k + 1),)](
            partial, values, labelled, voxels, n, plan.blocks, K=k, S=s, WIDTH=WIDTH
        )
    return values, labelled, voxels


def backward(
    upstream: Tensor,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
) -> Tensor:
    """The gradient (N, K, V) to x, in its dtype and memory format, from that to `values`."""
    from . import triton_kernels as kernels

    n, k, v = x.shape
    plan = _plan(n, k, v)
    out = torch.empty_like(x)
    (tensors, sizes), meta = _common(x, labels, weights, gamma, rest_gamma, form, plan)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.gradient[(n * plan.tiles,)](
            *tensors,
            upstream,
            out,
            v,
            plan.tiles,
            *sizes,
            *upstream.stride(),
            *out.stride(),
            LARGEST=torch.finfo(x.dtype).max,
            **meta,
        )
    return out


def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    dense: bool,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """See engines.py."""
    from . import triton_kernels as kernels

    n, k = len(labels), channels
    kept: dict[str, Any] = {"dtype": dtype, "device": labels.device}
    if labels.numel() == 0:
        return torch.zeros(n, k, **kept), torch.zeros(n, k, **kept), torch.zeros(n, 1, **kept)
    labels, ignore_index = signed(labels if dense else labels.unsqueeze(1), ignore_index)
    axes = [axis for axis in range(2, labels.ndim) if labels.shape[axis] > 1] or [2]  # along others nothing changes
    axes.sort(key=labels.stride, reverse=True)  # neighbours along the last lie together in memory
    lacking = [0] * (3 - len(axes))
    shape = [1 for _ in lacking] + [labels.shape[axis] for axis in axes]
    sizes = [ignore_index or 0, *labels.stride()[:2], *lacking, *map(labels.stride, axes)]
    if weights is None:
        sizes += [0] * 4
    else:
        sizes += [weights.stride(0), *lacking, *(weights.stride(axis - 1) for axis in axes)]
    squares = constant(tuple(steps[axis - 2] ** 2 for axis in reversed(axes)), dtype, labels.device)
    cut = _cut(n, k, shape, (MASK_NUMBERS_DENSE if dense else MASK_NUMBERS) * 4 // dtype.itemsize)
    partial = torch.empty(n, 2 * k + 1, cut.blocks, **kept)
    volume, surface, voxels = torch.empty(n, k, **kept), torch.empty(n, k, **kept), torch.empty(n, 1, **kept)
    with torch.cuda.device_of(labels):  # type: ignore[no-untyped-call]
        kernels.partial_masks[(n * -(-k // cut.channels) * cut.blocks,)](
            _bytes(labels),
            None if weights is None else _bytes(weights),
            squares,
            partial,
            *shape,
            cut.blocks,
            cut.steps,
            *sizes,
            AXES=len(axes),
            K=k,
            DENSE=dense,
            IGNORES=ignore_index is not None,
            KP=cut.channels,
            ROWS=cut.rows,
            COLUMNS=cut.columns,
        )
        kernels.add_up[(n * (2 * k + 1),)](partial, volume, surface, voxels, n, cut.blocks, K=k, S=1, WIDTH=WIDTH)
    return volume, surface, voxels


class _Plan(NamedTuple):
    """How the voxels are shared out; it depends on nothing but the shape, and so do the digits of the sums."""

    rows: int  # channels of a tile, a power of 2
    lanes: int  # groups of voxels of a tile, a power of 2
    vec: int  # voxels of a group, a power of 2
    warps: int
    steps: int  # tiles of a program, in the forward
    blocks: int  # programs of an image, in the forward
    tiles: int  # of an image


def _plan(n: int, k: int, v: int) -> _Plan:
    rows = next((rows for rows in sorted(TILES) if rows >= k), CHUNK)
    lanes, vec, warps = TILES[rows]
    tiles = -(-v // (lanes * vec))
    steps = min(STEPS, max(1, n * tiles // PROGRAMS))
    return _Plan(rows, lanes, vec, warps, steps, -(-tiles // steps), tiles)


class _Cut(NamedTuple):
    """How the volumes of masks are shared out, likewise."""

    channels: int  # of a tile, a power of 2
    rows: int  # of a tile, a power of 2
    columns: int  # of a tile, a power of 2
    steps: int  # tiles of a program
    blocks: int  # programs of an image, for the channels of a tile


def _cut(n: int, k: int, shape: Sequence[int], numbers: int) -> _Cut:
    """Into the fewest tiles of no more than so many numbers, and of these the widest."""
    a, b, c = shape
    channels = min(_power_of_2(k), CHUNK)
    voxels = max(min(MASK_VOXELS, numbers // channels), 1)
    widest = min(_power_of_2(c), voxels)
    shapes = [(min(_power_of_2(b), voxels // width), width) for width in (32, 64, 128, widest) if width <= widest]
    tiles, _, rows, columns = min((-(-b // rows) * -(-c // width), -width, rows, width) for rows, width in shapes)
    steps = min(STEPS, max(1, n * -(-k // channels) * a * tiles // PROGRAMS))
    return _Cut(channels, rows, columns, steps, -(-a * tiles // steps))


def _power_of_2(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _common(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form, plan: _Plan
) -> tuple[tuple[list[Tensor | None], list[int]], dict[str, Any]]:
    """What both passes hand to their kernel: tensors, numbers, and what a kernel is compiled for."""
    n, k, _ = x.shape
    dense = labels.ndim == x.ndim
    labels, ignore_index = signed(labels, form.ignore_index)
    gammas = [e.expand(n, k) for e in (gamma, rest_gamma)]
    tensors = [x, _bytes(labels), None if weights is None else _bytes(weights), *gammas]
    label_strides = labels.stride() if dense else (labels.stride(0), 0, labels.stride(1))
    weight_strides = (0, 0) if weights is None else weights.stride()
    sizes = [ignore_index or 0, *x.stride(), *label_strides, *weight_strides, *gammas[0].stride(), *gammas[1].stride()]
    meta = {
        **{name.upper(): form.wanted.index(name) if name in form.wanted else -1 for name in _SUMS},
        "K": k,
        "ACTIVATION": form.activation,
        "DENSE": dense,
        "IGNORES": ignore_index is not None,
        "KP": plan.rows,
        "LANES": plan.lanes,
        "VEC": plan.vec,
        "num_warps": plan.warps,
    }
    return (tensors, sizes), meta


def _bytes(x: Tensor) -> Tensor:
    return x.view(torch.uint8) if x.dtype == torch.bool else x

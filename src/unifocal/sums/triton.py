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

# A tile: groups of voxels, voxels of a group, warps. One warp adds up its tile without a word to another.
FORWARD = (32, 4, 1)
BACKWARD = (32, 4, 1)
BACKWARD_OF_ALL = (128, 2, 4)  # where there is an entropy of each channel, which takes more registers
CARRIED = 4  # the code of up to so many channels is written out, and a program adds up tiles before its threads share
STEP = 2  # of more channels, the code of so many is

PROGRAMS = 4096  # keep a large GPU busy; beyond that each takes several tiles
STEPS = 16  # at most

WIDTH = 4096  # partial sums of a row that are added at a time
FOLDED = 4  # times so many or more are added in two steps

# A tile of masks: its channels at most, its voxels, and its voxels times channels. Dense labels take more registers.
MASK_PROGRAMS = 1024
MASK_CHANNELS = 32
MASK_VOXELS = 256
MASK_NUMBERS, MASK_NUMBERS_DENSE = 2048, 512

_SUMS = ("tp", "fp", "fn", "tn", "ce", "rest")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INDICES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _version() -> str:
    return version("triton")


def _is_old(found: str) -> bool:
    """Older than 3.3, the first that knows tuples."""
    return tuple(map(int, found.split(".")[:2])) < (3, 3)


@cache
def _is_too_old(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) < (7, 0)


def detail() -> str:
    """Its version, or where it comes from."""
    return f"Triton {_version()}" if _is_installed() else "Triton, which comes with PyTorch for CUDA"


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
    if _is_old(_version()):
        return f"Triton {_version()} is too old; 3.3 comes with PyTorch 2.7"
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
    tiles = -(-v // (FORWARD[0] * FORWARD[1]))
    steps = min(STEPS, max(1, n * tiles // PROGRAMS)) if k <= CARRIED else 1
    blocks = -(-tiles // steps)
    kept: dict[str, Any] = {"dtype": gamma.dtype, "device": x.device}
    values, labelled, voxels = torch.empty(s, n, k, **kept), torch.empty(n, k, **kept), torch.empty(n, 1, **kept)
    partial = torch.empty(n, (s + 1) * k + 1, blocks, **kept)
    (tensors, sizes), meta = _common(x, labels, weights, gamma, rest_gamma, form, FORWARD)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.partial_sums[(n * blocks,)](*tensors, partial, v, blocks, steps, *sizes, S=s, CLIP=form.clip, **meta)
        _add_up(partial, values, labelled, voxels)
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

    n, _, v = x.shape
    of_label = form.activation == "softmax" and "rest" not in form.wanted and labels.ndim < x.ndim
    tile = BACKWARD if of_label else BACKWARD_OF_ALL
    blocks = -(-v // (tile[0] * tile[1]))
    out = torch.empty_like(x)
    (tensors, sizes), meta = _common(x, labels, weights, gamma, rest_gamma, form, tile)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernels.gradient[(n * blocks,)](
            *tensors,
            upstream,
            out,
            v,
            blocks,
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
        _add_up(partial, volume[None], surface, voxels)
    return volume, surface, voxels


def _add_up(partial: Tensor, values: Tensor, labelled: Tensor, voxels: Tensor) -> None:
    """Add up the rows of partial (N, (S + 1) K + 1, blocks) into values (S, N, K), labelled and voxels."""
    from . import triton_kernels as kernels

    n, rows, blocks = partial.shape
    s, _, k = values.shape
    while blocks > FOLDED * WIDTH:
        pieces = -(-blocks // WIDTH)
        folded = torch.empty(n, rows, pieces, dtype=torch.float64, device=partial.device)
        kernels.fold[(n * rows * pieces,)](partial, folded, blocks, pieces, WIDTH=WIDTH)
        partial, blocks = folded, pieces
    kernels.add_up[(n * rows,)](
        partial, values, labelled, voxels, n, blocks, K=k, S=s, WIDTH=min(WIDTH, _power_of_2(blocks))
    )


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
    channels = min(_power_of_2(k), MASK_CHANNELS)
    voxels = max(min(MASK_VOXELS, numbers // channels), 1)
    widest = min(_power_of_2(c), voxels)
    shapes = [(min(_power_of_2(b), voxels // width), width) for width in (32, 64, 128, widest) if width <= widest]
    tiles, _, rows, columns = min((-(-b // rows) * -(-c // width), -width, rows, width) for rows, width in shapes)
    steps = min(STEPS, max(1, n * -(-k // channels) * a * tiles // MASK_PROGRAMS))
    return _Cut(channels, rows, columns, steps, -(-a * tiles // steps))


def _power_of_2(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _common(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
    tile: tuple[int, int, int],
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
        "STEP": k if k <= CARRIED else STEP,
        "CARRIED": k <= CARRIED,
        "LANES": tile[0],
        "VEC": tile[1],
        "num_warps": tile[2],
    }
    return (tensors, sizes), meta


def _bytes(x: Tensor) -> Tensor:
    return x.view(torch.uint8) if x.dtype == torch.bool else x

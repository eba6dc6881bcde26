"""The engine in C++ (`cpu/`), called through ctypes: one pass forward, one backward, no temporaries.

Its library is compiled when the package is built and a compiler is there; without it `why_not` says so.
"""

import ctypes
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .form import Form, MaskExponent, OfRegion
from .tracing import has_memory

LIBRARY = Path(__file__).with_name("_native.so")
MOST_AXES = 3  # spatial ones, of masks
INSTRUCTIONS = ("portable", "AVX2", "AVX-512")
_ACTIVATIONS = {"softmax": 0, "sigmoid": 1, "none": 2}
_SUMS = ("tp", "fp", "fn", "tn", "ce", "rest")
_DTYPES = {
    torch.float16: 0,
    torch.bfloat16: 1,
    torch.float32: 2,
    torch.float64: 3,
    torch.bool: 4,
    torch.uint8: 5,
    torch.int8: 6,
    torch.uint16: 7,
    torch.int16: 8,
    torch.uint32: 9,
    torch.int32: 10,
    torch.uint64: 11,
    torch.int64: 12,
}
T = TypeVar("T")

_CALL = struct.Struct("=69q")  # struct Call of cpu/call.h
_REINSTALL = (
    "with g++ or clang++ there, installing unifocal once more compiles it: from where you have it, by "
    "`pip install -v --force-reinstall --no-deps --no-cache-dir FOLDER_OR_ADDRESS`"
)
_MASKS = struct.Struct("=25q6dq")  # struct Masks
_MEAN = struct.Struct("=7qd16q")  # struct Mean of cpu/mean.cpp
_REGION = struct.Struct("=10q3dq")  # struct Region
_REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
_NO_TENSOR = (0, 0, 0, 0, 0)
_ONE_THREAD = 32_768  # voxel-classes below which a second thread costs more than it saves


@cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if not LIBRARY.exists():
        return f"it was not compiled when this package was installed, as for want of a C++ compiler; {_REINSTALL}"
    try:
        library = ctypes.CDLL(str(LIBRARY))
        for name in (
            "unifocal_words",
            "unifocal_isa",
            "unifocal_openmp",
            "unifocal_run",
            "unifocal_masks",
            "unifocal_mean_words",
        ):
            getattr(library, name).restype = ctypes.c_int64
        words = library.unifocal_words() + library.unifocal_mean_words()
        if words * 8 != _CALL.size + _MASKS.size + _MEAN.size + _REGION.size:
            return f"its library belongs to another version of this package; {_REINSTALL}"
    except (OSError, AttributeError) as error:
        return f"its library cannot be loaded ({error}); {_REINSTALL}"
    return library


def why_missing() -> str | None:
    """Why it serves no call on this machine, if that is so."""
    library = _load()
    return library if isinstance(library, str) else None


@cache
def instructions() -> int:
    """Position in INSTRUCTIONS of the widest instruction set that this processor has."""
    library = _load()
    return 0 if isinstance(library, str) else int(library.unifocal_isa())


def detail() -> str:
    """Instruction set and threading."""
    library = _load()
    if isinstance(library, str):
        return "C++"
    threads = "OpenMP" if library.unifocal_openmp() else "one thread"
    return f"C++, {INSTRUCTIONS[instructions()]}, {threads}; A-FL in up to {MOST_AXES} dimensions"


def why_not(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form | None) -> str | None:
    """Its reason not to serve a call: no library, or tensors that are not in the memory of the CPU."""
    if missing := why_missing():
        return missing
    if x.device.type != "cpu":
        return f"it computes on the CPU, and the logits are on {x.device}"
    if not has_memory(x, labels, weights):
        return "it needs tensors with memory, not those of a graph that is traced or of torch.func"
    if form is None and x.ndim - 2 > MOST_AXES:
        return f"its masks have up to {MOST_AXES} spatial axes, and the labels have {x.ndim - 2}"
    return None


def forward(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
    noticed: list[int] | None = None,
    of_masks: MaskExponent | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See engines.py.

    noticed   to it is added what is odd about the labels: FOREIGN, UNBALANCED, both or 0, see labels.py
    of_masks  what gamma, (N, K) and the same as rest_gamma, is filled with first
    """
    n, k, _ = x.shape
    values = gamma.new_empty((len(form.wanted), n, k))
    labelled, voxels = gamma.new_empty((n, k)), gamma.new_empty((n, 1))
    outputs = (*_NO_TENSOR, *_view(values), *_view(labelled), *_view(voxels), *_NO_TENSOR)
    odd = _run(x, labels, weights, gamma, rest_gamma, form, outputs, False, of_masks)
    if noticed is not None:
        noticed.append(odd)
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
    """See engines.py."""
    gradient = torch.empty_like(x)
    upstream = upstream.contiguous()
    outputs = (upstream.data_ptr(), _DTYPES[upstream.dtype], 0, 1, 0, *_NO_TENSOR * 3, *_view(gradient))
    _run(x, labels, weights, gamma, rest_gamma, form, outputs, True)
    return gradient


def _run(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
    outputs: tuple[int, ...],
    back: bool,
    of_masks: MaskExponent | None = None,
) -> int:
    library = _load()
    assert not isinstance(library, str)
    n, k, voxels = x.shape
    ignores = form.ignore_index is not None
    head = (
        n,
        k,
        voxels,
        _ACTIVATIONS[form.activation],
        form.clip,
        labels.ndim == 3,
        ignores,
        form.ignore_index or 0,
        torch.get_num_threads() if x.numel() >= _ONE_THREAD else 1,
        instructions(),
        back,
        *(form.wanted.index(name) if name in form.wanted else -1 for name in _SUMS),
        *_view(x),
        *_view(labels),
        *(_NO_TENSOR if weights is None else _view(weights)),
        *_per_class(gamma),
        *_per_class(rest_gamma),
        *outputs,
    )
    odd = ctypes.c_int64(0)
    call = _CALL.pack(*head, 0, 0 if back else ctypes.addressof(odd))
    if library.unifocal_run(call, None if of_masks is None else _of_masks(of_masks, gamma.dtype)):
        raise MemoryError("the native engine of unifocal could not allocate its scratch memory.")
    return odd.value


def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    dense: bool,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """See masks.py."""
    library = _load()
    assert not isinstance(library, str)
    totals = torch.empty((labels.shape[0], 2 * channels + 1), dtype=dtype, device=labels.device)
    call = _of_masks(MaskExponent(labels, weights, channels, dense, ignore_index, tuple(steps)), dtype)
    if library.unifocal_masks(call, ctypes.c_void_p(totals.data_ptr())):
        raise MemoryError("the native engine of unifocal could not allocate its scratch memory.")
    volumes, surfaces, voxels = totals.split_with_sizes((channels, channels, 1), 1)
    return volumes, surfaces, voxels


def mean(
    values: Tensor,
    labelled: Tensor,
    voxels: Tensor,
    reduction: str,
    weights: Tensor,
    constant: float,
    entropy: Tensor | None,
    regions: Sequence[OfRegion],
) -> tuple[Tensor, Tensor]:
    """See engines.py."""
    library = _load()
    assert not isinstance(library, str)
    n, k = labelled.shape
    classes = weights.shape[0]
    before = len(values) % (classes + 2)  # slices of ce, before those of tp, fp and fn
    value = values.new_empty((n,) if reduction == "none" else ())
    slopes = torch.empty_like(values)
    of_regions = [_REGION.pack(*_factors(share), *_factors(exponent), *rest) for share, exponent, *rest in regions]
    call = _MEAN.pack(
        n,
        k,
        classes,
        _REDUCTIONS[reduction],
        len(regions),
        len(values),
        before,
        constant,
        *(_NO_TENSOR if entropy is None else _factors(entropy)),
        *_factors(weights),
        values.dtype == torch.float64,
        values.data_ptr(),
        labelled.data_ptr(),
        voxels.data_ptr(),
        slopes.data_ptr(),
        value.data_ptr(),
    )
    library.unifocal_mean(call, b"".join(of_regions))
    return value, slopes


def _factors(t: Tensor) -> tuple[int, ...]:
    """Address, whether it is double, and strides of what broadcasts to (P, N, K)."""
    strides = [0 if size == 1 else step for size, step in zip(t.shape, t.stride(), strict=True)]
    return t.data_ptr(), t.dtype == torch.float64, *(0,) * (3 - len(strides)), *strides


def _of_masks(e: MaskExponent, dtype: torch.dtype) -> bytes:
    """struct Masks."""
    extent = e.labels.shape[2 if e.dense else 1 :]
    few = extent.numel() < _ONE_THREAD  # then an image is one task, and its rows lie along the second axis
    return _MASKS.pack(
        e.labels.shape[0],
        e.channels,
        *_in_space(extent, 1, few),
        e.dense,
        e.ignore_index is not None,
        e.ignore_index or 0,
        torch.get_num_threads() if e.labels.numel() >= _ONE_THREAD else 1,
        instructions(),
        dtype == torch.float64,
        *_in_volume(e.labels, e.dense, few),
        *((0,) * 7 if e.weights is None else _in_volume(e.weights, False, few)),
        *_in_space(e.steps, 1.0, few),
        e.size,
        e.smoothness,
        e.constant,
        0,  # it makes room for partial sums itself
    )


def _in_volume(t: Tensor, dense: bool, few: bool) -> tuple[int, ...]:
    """Address, dtype and strides along (N, K, A, B, C)."""
    images, *rest = t.stride()
    channels = rest.pop(0) if dense else 0
    return t.data_ptr(), _DTYPES[t.dtype], images, channels, *_in_space(rest, 0, few)


def _in_space(along: Sequence[T], filler: T, few: bool) -> Sequence[T]:
    """Of one to three spatial axes as of three."""
    if len(along) == 2:
        return (filler, *along) if few else (along[0], filler, along[1])
    return (*(filler,) * (3 - len(along)), *along)


def _view(t: Tensor) -> tuple[int, ...]:
    """Address, dtype and strides along (N, K, V)."""
    strides = t.stride() if t.ndim == 3 else (t.stride(0), 0, t.stride(1))
    return t.data_ptr(), _DTYPES[t.dtype], *strides


def _per_class(t: Tensor) -> tuple[int, ...]:
    """Address, dtype and strides of what broadcasts to (N, K)."""
    images, channels = (0, 0, *[0 if size == 1 else step for size, step in zip(t.shape, t.stride(), strict=True)])[-2:]
    return t.data_ptr(), _DTYPES[t.dtype], images, channels, 0

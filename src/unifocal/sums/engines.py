"""The engines, and which of them serves a call: the fastest that can, or the one that was asked for.

An engine is a module with

    why_not(x, labels, weights, form) -> str | None       the reason why it cannot serve such a call, if any
    forward(x, labels, weights, gamma, rest_gamma, form) -> (values (S, N, K), labelled (N, K), voxels (N, 1))
    backward(upstream, x, labels, weights, gamma, rest_gamma, form) -> gradient (N, K, V) in the dtype of x

where x is (N, K, V) of any float dtype and strides, labels (N, V) or dense (N, K, V), weights (N, V) or None, of any
dtype and strides, and gamma and rest_gamma broadcast to (N, K) in the dtype of the sums, which is float32, or float64
for float64 x. README.md says what they compute.
"""

from types import ModuleType

from torch import Tensor

from . import reference
from .form import Form

ENGINES: dict[str, ModuleType] = {"reference": reference}  # in the order in which "auto" tries them


def select(name: str, x: Tensor, labels: Tensor, weights: Tensor | None, form: Form) -> ModuleType:
    """The engine of that name, or for "auto" the first that can serve the call."""
    if name == "auto":
        return next(e for e in ENGINES.values() if e.why_not(x, labels, weights, form) is None)
    reason = ENGINES[name].why_not(x, labels, weights, form)
    if reason:
        raise RuntimeError(f"engine={name!r} cannot serve this call: {reason}. engine='auto' chooses one that can.")
    return ENGINES[name]

"""From a name of the catalogue to a network."""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unifocal.lab.errors import LabError
from unifocal.lab.networks.catalogue import NETWORKS, check_network, check_width, divisor

if TYPE_CHECKING:
    from torch import Tensor, nn


def build(
    name: str,
    *,
    dimension: int,
    channels: int,
    classes: int,
    seed: int,
    width: int | None = None,
    deep_supervision: bool = False,
    **arguments: Any,
) -> "nn.Module":
    """The network `name`: images (N, channels, *spatial) -> logits (N, classes, *spatial).

    dimension         2 or 3 spatial axes
    seed              the same seed gives the same weights, whatever was drawn before, with deep supervision or
                      without; no global generator is touched
    width             channels of the first level; the catalogue has the default
    deep_supervision  in training mode give a list of logits at strides 1, 2, 4, ... (of `mrrn` at 1 and 2), each at
                      its own size, as `unifocal.DeepSupervision` takes them. In eval mode there is one tensor always.
    arguments         of this network, see `NETWORKS[name].arguments`

    Every size must be a multiple of `divisor`. In 2D the weights lie in channels_last, which the CPU and the GPU
    convolutions both prefer.

    Raises LabError for what the network does not take, and later for images of a size that it cannot process.
    """
    check_network(name, dimension, arguments, deep_supervision)
    check_width(name, width)
    entry = NETWORKS[name]
    own = entry.width[dimension] if entry.width else None
    for what, number in (("channels", channels), ("classes", classes)):
        if type(number) is not int or number < 1:
            raise LabError(f"network {name!r}: expected {what} as a whole number from 1 up; got {number!r}.")

    import torch

    from unifocal.lab.networks.supervision import add_heads

    make = getattr(import_module(f"unifocal.lab.networks.{entry.module}"), name.replace("-", "_"))
    defaults = {key: argument.default for key, argument in entry.arguments.items()}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would set the GPUs' generators, too
        network, taps = make(dimension, channels, classes, width or own, **defaults | arguments)
        if deep_supervision:
            add_heads(network, taps, dimension, classes)
    network.register_forward_pre_hook(
        partial(_check_size, name, divisor(name, dimension, **arguments), entry.one_voxel), prepend=True
    )
    if dimension == 2:
        network.to(memory_format=torch.channels_last)
    return network  # type: ignore[no-any-return]


def _check_size(
    name: str, steps: tuple[int, ...], one_voxel: bool, network: "nn.Module", inputs: "tuple[Tensor]"
) -> None:
    size = tuple(inputs[0].shape[2:])
    if len(size) != len(steps) or any(n == 0 or n % step for n, step in zip(size, steps, strict=True)):
        raise LabError(
            f"network {name!r}: expected images (N, channels, *spatial) with sizes that are multiples of {steps}; got "
            f"{tuple(inputs[0].shape)}. Pad them, or take fewer levels where the network lets you."
        )
    if size == steps and not one_voxel:
        raise LabError(
            f"network {name!r}: images of size {size} leave one voxel at the bottleneck, which cannot be normalised. "
            f"Make at least one axis {2 * steps[0]}, or take fewer levels where the network lets you."
        )

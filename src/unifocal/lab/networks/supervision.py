"""Deep supervision of any network: 1x1 convolutions on layers of its decoder.

The heads are added to the network itself, and forward hooks feed them, so that everything else of it, names and
weights included, is as it is without them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

Tap = tuple[str, int]  # the name of a layer within the network, and the channels of its output


def add_heads(network: nn.Module, taps: Sequence[Tap], dimension: int, classes: int) -> None:
    """Make `network` return [its logits, one for each tap] in training mode. Taps come finest first."""
    convolution = nn.Conv2d if dimension == 2 else nn.Conv3d
    heads = nn.ModuleList(convolution(channels, classes, kernel_size=1) for _, channels in taps)
    network.add_module("supervision_heads", heads)
    features = _Features()
    for i, (layer, _) in enumerate(taps):
        network.get_submodule(layer).register_forward_hook(partial(features.keep, i))
    network.register_forward_hook(features.to_logits)


class _Features:
    """What the tapped layers gave in the forward pass under way."""

    def __init__(self) -> None:
        self.outputs: dict[int, Tensor] = {}

    def keep(self, i: int, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.outputs[i] = output

    def to_logits(self, network: nn.Module, inputs: Any, logits: Tensor) -> list[Tensor] | None:
        outputs, self.outputs = self.outputs, {}
        if not network.training:
            return None  # the logits as they are
        heads = network.get_submodule("supervision_heads")
        assert isinstance(heads, nn.ModuleList)
        return [logits, *(head(outputs[i]) for i, head in enumerate(heads))]

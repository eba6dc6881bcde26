"""R2U-Net, the recurrent residual U-Net of Alom et al. (arXiv 1802.06955); "RRUNet" in the A-FL paper.

A U-Net whose two convolutions a level are recurrent, with a residual connection around both:

    unit(x) = x + r(r(x))                                                            eq. (3), figure 4d
    r(x) = h_T,     h_0 = f_0(x),     h_t = f_t(x + h_(t-1)),  t = 1 ... T           eq. (1) and (2), T = 2
    f_t = ReLU, batch normalisation t, and one 3x3(x3) convolution for all t

Eq. (1) has a kernel for x and another for h. They are one kernel here, as in the code in use, which leaves the
network with about the parameters of a U-Net, as the paper has it. The normalisation belongs to a step: h_t has other
statistics than h_0, and running means over both are those of neither.
"""

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from unifocal.lab.networks.supervision import Tap


def r2unet(
    dimension: int, channels: int, classes: int, width: int, levels: int, steps: int
) -> tuple[nn.Module, list[Tap]]:
    network = R2UNet(dimension, channels, classes, [width * 2**level for level in range(levels)], steps)
    return network, [(f"decoder.{level}", width * 2**level) for level in range(1, levels - 1)]


class R2UNet(nn.Module):
    """widths are the channels of the levels, from full resolution down."""

    def __init__(self, dimension: int, channels: int, classes: int, widths: list[int], steps: int) -> None:
        super().__init__()
        above = widths[:-1]
        self.encoder = nn.ModuleList(
            RecurrentResidualUnit(dimension, a, b, steps) for a, b in zip([channels, *above], widths, strict=True)
        )
        self.pool = Pool["max", dimension](2)
        self.up = nn.ModuleList(Conv["convtrans", dimension](2 * w, w, kernel_size=2, stride=2) for w in above)
        self.decoder = nn.ModuleList(RecurrentResidualUnit(dimension, 2 * w, w, steps) for w in above)
        self.logits = Conv["conv", dimension](widths[0], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encode in self.encoder[:-1]:
            x = encode(x)
            skips.append(x)
            x = self.pool(x)
        x = self.encoder[-1](x)
        for skip, up, decode in zip(reversed(skips), reversed(self.up), reversed(self.decoder), strict=True):
            x = decode(torch.cat([skip, up(x)], dim=1))
        logits: Tensor = self.logits(x)
        return logits


class RecurrentResidualUnit(nn.Module):
    """Two recurrent convolutions with a residual connection; a 1x1 convolution before brings x to their channels."""

    def __init__(self, dimension: int, channels: int, width: int, steps: int) -> None:
        super().__init__()
        self.project = Conv["conv", dimension](channels, width, kernel_size=1)
        self.convolutions = nn.Sequential(*(RecurrentConvolution(dimension, width, steps) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        convolved: Tensor = self.convolutions(x)
        return x + convolved


class RecurrentConvolution(nn.Module):
    """One convolution, first of x, then `steps` times of the sum of x and its own output."""

    def __init__(self, dimension: int, width: int, steps: int) -> None:
        super().__init__()
        self.convolution = Conv["conv", dimension](width, width, kernel_size=3, padding=1)
        self.norms = nn.ModuleList(Norm["batch", dimension](width) for _ in range(1 + steps))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.norms
        h: Tensor = first(self.convolution(x)).relu()
        for norm in others:
            h = norm(self.convolution(x + h)).relu()
        return h

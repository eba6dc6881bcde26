"""Incremental MRRN, the multiple resolution residually connected network of Jiang et al. (IEEE TMI 38(1), 2019).

    full resolution   image ─ stem ┬ stream 0 ─────────────────────────────────────── end ─ logits
    stride 2                       └ block 1 ┬ stream 1 ────────────────── block 1 ─┘
    stride 4                                 └ block 2 ┬ stream 2 ─ block 2 ─┘
    stride 8                                           └ block 3 ─┘                        (and so on)

A block is a row of full-resolution residual units (FRRU, of Pohlen et al., CVPR 2017). Each reads one of the feature
streams above, at a resolution of its own, and adds to it: first stream 0, then all of them from the nearest up to
stream 0. So every level works with, and on, the features of all resolutions. A stream ends where the decoder is back
at its resolution and takes it up by concatenation.

Channels and rows of units are those of the authors' published code. It differs in the decoder, where it takes stream 1
in place of the features from below, and never reads streams 2 and 3 again, so that what was added to them last is lost.
"""

import torch
from monai.networks.layers.factories import Conv, Dropout, Norm, Pool
from torch import Tensor, nn
from torch.nn import functional as F

from unifocal.lab.networks.supervision import Tap

UNITS_AT_FULL_RESOLUTION = 3  # residual units before the first pooling and after the last upsampling


def mrrn(
    dimension: int, channels: int, classes: int, width: int, levels: int, dropout: float
) -> tuple[nn.Module, list[Tap]]:
    """One tap, on the last block before full resolution, as in MRRN-DS (Simeth et al., Medical Physics 2023)."""
    network = MRRN(dimension, channels, classes, width, levels, dropout)
    return network, [("decoder.0", 2 * width)] if levels > 2 else []


class MRRN(nn.Module):
    """width is that of stream 0; stream and block k have 2^k times as many channels."""

    def __init__(self, dimension: int, channels: int, classes: int, width: int, levels: int, dropout: float) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.stem = nn.Sequential(convolve(dimension, channels, width), *residual_units(dimension, width))
        self.stream = nn.Sequential(Conv["conv", dimension](width, width, kernel_size=1), nn.ReLU())
        self.pool = Pool["max", dimension](2)
        self.encoder = nn.ModuleList(
            Block(dimension, widths[: level + 1], widths[level - 1], dropout) for level in range(1, levels)
        )
        self.decoder = nn.ModuleList(
            Block(dimension, widths[: level + 1], widths[level] + widths[level + 1], dropout)
            for level in range(1, levels - 1)
        )
        self.end = nn.Sequential(convolve(dimension, 3 * width, width), *residual_units(dimension, width))
        self.logits = Conv["conv", dimension](width, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        streams = [self.stream(x)]
        for block in self.encoder:
            x = block(self.pool(x), streams)
            streams.append(x)
        x = streams.pop()
        for block in reversed(self.decoder):
            x = block(torch.cat([streams.pop(), resize(x, 2)], dim=1), streams)
        logits: Tensor = self.logits(self.end(torch.cat([streams.pop(), resize(x, 2)], dim=1)))
        return logits


class Block(nn.Module):
    """The units of one level, one after the other: `channels` in, widths[-1] out; widths[:-1] are those of the streams.

    The streams above are replaced in their list by what they become.
    """

    def __init__(self, dimension: int, widths: list[int], channels: int, dropout: float) -> None:
        super().__init__()
        level = len(widths) - 1
        self.order = [0, 0, 0] if level == 1 else [0, *reversed(range(level))]
        inputs = [channels] + [widths[-1]] * (len(self.order) - 1)
        self.units = nn.ModuleList(
            FullResolutionResidualUnit(dimension, n, widths[i], widths[-1], 2 ** (level - i), dropout)
            for n, i in zip(inputs, self.order, strict=True)
        )

    def forward(self, x: Tensor, streams: list[Tensor]) -> Tensor:
        for i, unit in zip(self.order, self.units, strict=True):
            x, streams[i] = unit(x, streams[i])
        return x


class FullResolutionResidualUnit(nn.Module):
    """y = G(x, pooled stream), stream + upsampled 1x1 convolution of y; G is two convolutions of both concatenated."""

    def __init__(self, dimension: int, channels: int, stream: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.read = nn.Sequential(Pool["max", dimension](stride), Dropout["dropout", dimension](dropout))
        self.merge = nn.Sequential(convolve(dimension, stream + channels, width), convolve(dimension, width, width))
        self.add = Conv["conv", dimension](width, stream, kernel_size=1)
        self.stride = stride

    def forward(self, x: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:
        y = self.merge(torch.cat([self.read(stream), x], dim=1))
        return y, stream + resize(self.add(y), self.stride)


class ResidualUnit(nn.Module):
    def __init__(self, dimension: int, width: int) -> None:
        super().__init__()
        self.convolve = convolve(dimension, width, width)

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.convolve(x)
        return x + convolved


def residual_units(dimension: int, width: int) -> list[ResidualUnit]:
    return [ResidualUnit(dimension, width) for _ in range(UNITS_AT_FULL_RESOLUTION)]


def convolve(dimension: int, channels: int, width: int) -> nn.Sequential:
    convolution = Conv["conv", dimension](channels, width, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, Norm["batch", dimension](width), nn.ReLU())


def resize(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear" if x.ndim == 4 else "trilinear")

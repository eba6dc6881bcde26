"""R2U-Net and MRRN against their equations, written a second time in plain functions, and their parameters by hand."""

import pytest
import torch
from torch.nn import functional as F

from unifocal.lab.networks import build

CONVOLVE = {2: F.conv2d, 3: F.conv3d}
CONVOLVE_UP = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOL = {2: F.max_pool2d, 3: F.max_pool3d}
dimensions = pytest.mark.parametrize("dimension", [2, 3])


class Weights:
    """The weights of a network as a state dict, with the layers as functions of their names."""

    def __init__(self, network, dimension):
        self.values, self.dimension = network.state_dict(), dimension

    def conv(self, name, x):
        weight = self.values[f"{name}.weight"]
        return CONVOLVE[self.dimension](x, weight, self.values.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def up(self, name, x):
        weight, bias = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return CONVOLVE_UP[self.dimension](x, weight, bias, stride=2)

    def norm(self, name, x):
        """Batch normalisation in training mode, by hand."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
        shape = (1, -1, *[1] * self.dimension)
        weight, bias = (self.values[f"{name}.{key}"].view(shape) for key in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def pool(self, x, factor=2):
        return POOL[self.dimension](x, factor)

    def resize(self, x, factor):
        return F.interpolate(x, scale_factor=factor, mode={2: "bilinear", 3: "trilinear"}[self.dimension])


def perturbed(name, dimension, **arguments):
    """A network whose normalisations have weights and biases that are not 1 and 0."""
    network = build(name, dimension=dimension, channels=2, classes=3, seed=4, width=3, **arguments).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1:
                p.add_(torch.rand(p.shape, generator=generator, dtype=p.dtype))
    return network.train(), Weights(network, dimension)


@dimensions
def test_r2unet_is_a_unet_of_recurrent_residual_units(dimension):
    network, w = perturbed("r2unet", dimension, levels=3, steps=2)

    def recurrent(name, x):
        f = [lambda h, t=t: F.relu(w.norm(f"{name}.norms.{t}", w.conv(f"{name}.convolution", h))) for t in range(3)]
        h = f[0](x)
        h = f[1](x + h)
        return f[2](x + h)

    def unit(name, x):
        x = w.conv(f"{name}.project", x)
        return x + recurrent(f"{name}.convolutions.1", recurrent(f"{name}.convolutions.0", x))

    x = torch.randn(2, 2, *[8] * dimension, dtype=torch.float64)
    e0 = unit("encoder.0", x)
    e1 = unit("encoder.1", w.pool(e0))
    e2 = unit("encoder.2", w.pool(e1))
    d1 = unit("decoder.1", torch.cat([e1, w.up("up.1", e2)], 1))
    d0 = unit("decoder.0", torch.cat([e0, w.up("up.0", d1)], 1))
    torch.testing.assert_close(network(x), w.conv("logits", d0))


@dimensions
def test_mrrn_reads_and_adds_to_the_streams_in_turn(dimension):
    network, w = perturbed("mrrn", dimension, levels=4)

    def layer(name, x):
        return F.relu(w.norm(f"{name}.1", w.conv(f"{name}.0", x)))

    def frru(name, x, stream, stride):
        y = layer(f"{name}.merge.1", layer(f"{name}.merge.0", torch.cat([w.pool(stream, stride), x], 1)))
        return y, stream + w.resize(w.conv(f"{name}.add", y), stride)

    def residual(name, x):
        return x + layer(f"{name}.convolve", x)

    def ends(name, x):
        x = layer(f"{name}.0", x)
        for i in (1, 2, 3):
            x = residual(f"{name}.{i}", x)
        return x

    x = torch.randn(2, 2, *[16] * dimension, dtype=torch.float64)
    stem = ends("stem", x)
    s0 = F.relu(w.conv("stream.0", stem))

    y = w.pool(stem)  # block 1: stream 0 three times
    y, s0 = frru("encoder.0.units.0", y, s0, 2)
    y, s0 = frru("encoder.0.units.1", y, s0, 2)
    s1, s0 = frru("encoder.0.units.2", y, s0, 2)

    y = w.pool(s1)  # block 2: streams 0, 1, 0
    y, s0 = frru("encoder.1.units.0", y, s0, 4)
    y, s1 = frru("encoder.1.units.1", y, s1, 2)
    s2, s0 = frru("encoder.1.units.2", y, s0, 4)

    y = w.pool(s2)  # block 3, the bottleneck: streams 0, 2, 1, 0
    y, s0 = frru("encoder.2.units.0", y, s0, 8)
    y, s2 = frru("encoder.2.units.1", y, s2, 2)
    y, s1 = frru("encoder.2.units.2", y, s1, 4)
    y, s0 = frru("encoder.2.units.3", y, s0, 8)

    y = torch.cat([s2, w.resize(y, 2)], 1)  # stream 2 ends; streams 0, 1, 0
    y, s0 = frru("decoder.1.units.0", y, s0, 4)
    y, s1 = frru("decoder.1.units.1", y, s1, 2)
    y, s0 = frru("decoder.1.units.2", y, s0, 4)

    y = torch.cat([s1, w.resize(y, 2)], 1)  # stream 1 ends; stream 0 three times
    y, s0 = frru("decoder.0.units.0", y, s0, 2)
    y, s0 = frru("decoder.0.units.1", y, s0, 2)
    y, s0 = frru("decoder.0.units.2", y, s0, 2)

    y = ends("end", torch.cat([s0, w.resize(y, 2)], 1))
    torch.testing.assert_close(network(x), w.conv("logits", y))


def count(name, dimension, **arguments):
    with torch.device("meta"):
        network = build(name, dimension=dimension, channels=1, classes=2, seed=0, **arguments)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("dimension", "width"), [(2, 64), (3, 16)])
def test_parameters_of_r2unet(dimension, width):
    """A U-Net's, with 1x1 convolutions before each unit."""
    k, widths = 3**dimension, [width * 2**level for level in range(5)]

    def unit(a, b):
        return (a * b + b) + 2 * (k * b * b + b + 3 * 2 * b)  # project; kernel, bias, three normalisations

    encoder = sum(unit(a, b) for a, b in zip([1, *widths], widths, strict=False))
    up = sum(2**dimension * 2 * b * b + b for b in widths[:-1])
    decoder = sum(unit(2 * b, b) for b in widths[:-1])
    assert count("r2unet", dimension) == encoder + up + decoder + 2 * width + 2


def test_parameters_of_mrrn():
    w = [32, 64, 128, 256, 512]
    rows = {1: (0, 0, 0), 2: (0, 1, 0), 3: (0, 2, 1, 0), 4: (0, 3, 2, 1, 0)}  # the streams that a level's units read

    def layer(a, b):
        return 9 * a * b + 2 * b

    def row(k, entering):
        total = 0
        for i in rows[k]:
            total += layer(w[i] + entering, w[k]) + layer(w[k], w[k]) + (w[k] * w[i] + w[i])
            entering = w[k]
        return total

    ends = layer(1, 32) + 3 * layer(32, 32) + (32 * 32 + 32) + layer(96, 32) + 3 * layer(32, 32) + 2 * 32 + 2
    encoder = sum(row(k, w[k - 1]) for k in rows)
    decoder = row(3, w[4] + w[3]) + row(2, w[3] + w[2]) + row(1, w[2] + w[1])
    assert count("mrrn", 2) == ends + encoder + decoder

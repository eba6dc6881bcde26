"""Whole losses on a GPU against the definition on the CPU: eagerly, compiled, under autocast and as a CUDA graph.

test_triton.py has the kernels alone.
"""

from collections.abc import Callable

import pytest
import torch
from cases import ALL, make, value_and_gradient, volume
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from unifocal.sums import SumName, voxel_sums

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own compiler
]

FORMS = ("softmax", "sigmoid", "soft")
SEVERAL = ("dice-ce", "focal-tversky", "unified-focal", "adaptive-focal")


def batch(form: str, spatial: tuple[int, ...] = (17, 9, 5)) -> tuple[Tensor, Tensor]:
    """Logits in float32 and labels, on the CPU."""
    x, labels = volume(1 if form == "sigmoid" else 3, spatial)
    if form == "soft":
        labels = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() * 0.8 + 0.2 / 3
    return x.float(), labels if form == "soft" else labels.to(torch.uint8)


def as_defined(name: str, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient by the definition, in float64."""
    return value_and_gradient(make(name, engine="reference"), x.double(), labels)


def check(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], digits: float = 1e-5) -> None:
    torch.testing.assert_close(found[0].cpu().double(), expected[0], rtol=digits, atol=digits / 10)
    most = expected[1].abs().max().item()
    torch.testing.assert_close(found[1].cpu().double(), expected[1], rtol=0, atol=5 * digits * most)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ALL)
def test_every_loss_is_as_defined(name, form):
    x, labels = batch(form)
    loss = make(name)
    for engine in ("auto", "aten"):
        found = value_and_gradient(make(name, engine=engine), x.cuda(), labels.cuda())
        check(found, as_defined(name, x, labels))
    first, second = (value_and_gradient(loss, x.cuda(), labels.cuda()) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:.*is a prototype feature:UserWarning")
def test_the_cpu_does_not_wait_for_the_gpu(name):
    x, labels = (t.cuda() for t in batch("softmax"))
    loss = make(name)
    value_and_gradient(loss, x, labels)  # constants are brought there once
    try:
        torch.cuda.set_sync_debug_mode("error")
        value_and_gradient(loss, x, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast(name, dtype):
    x, labels = batch("softmax")
    x = x.to(dtype)
    with torch.autocast("cuda", dtype):
        value, gradient = value_and_gradient(make(name), x.cuda(), labels.cuda())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    expected = as_defined(name, x, labels)
    check((value, gradient), (expected[0], expected[1].to(dtype).double()), digits=1e-5 + torch.finfo(dtype).eps / 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_compiled_in_one_graph(name):
    torch.compiler.reset()
    loss = torch.compile(make(name), fullgraph=True)
    for spatial in ((17, 9, 5), (8, 8, 8), (5, 6, 7)):
        x, labels = batch("softmax", spatial)
        check(value_and_gradient(loss, x.cuda(), labels.cuda()), as_defined(name, x, labels))


@pytest.mark.parametrize("name", ALL)
def test_a_step_is_replayed_as_a_cuda_graph(name):
    x, labels = batch("softmax")
    loss = make(name)
    z, y = x.cuda().requires_grad_(), labels.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            torch.autograd.grad(loss(z, y), z)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(z, y)
        (gradient,) = torch.autograd.grad(value, z)
    others = batch("softmax")
    other, its_labels = others[0].flip(2) * 1.3, others[1].flip(1, 2)
    with torch.no_grad():
        z.copy_(other)
        y.copy_(its_labels)
    graph.replay()
    check((value.detach(), gradient), as_defined(name, other, its_labels))


def kernels(loss: Callable[..., Tensor], x: Tensor, labels: Tensor) -> list[str]:
    """What a step launches on the GPU: kernels, copies and fills."""
    for _ in range(2):
        torch.autograd.grad(loss(x, labels), x)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        torch.autograd.grad(loss(x, labels), x)
        torch.cuda.synchronize()
    return [e.name for e in found.events() if e.device_type.name == "CUDA"]


@pytest.mark.parametrize("name", ALL)
def test_launches(name):
    x, labels = (t.cuda() for t in batch("softmax"))
    found = kernels(make(name), x.requires_grad_(), labels)
    assert 3 <= len(found) <= 25, found


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_launches_when_compiled(name):
    torch.compiler.reset()
    x, labels = (t.cuda() for t in batch("softmax"))
    found = kernels(torch.compile(make(name), fullgraph=True), x.requires_grad_(), labels)
    assert 3 <= len(found) <= (11 if name == "adaptive-focal" else 10), found


@pytest.mark.parametrize("name", ALL)
def test_memory(name):
    x = torch.randn(2, 3, 64, 64, 64, device="cuda", requires_grad=True)
    labels = torch.randint(0, 3, (2, 64, 64, 64), device="cuda", dtype=torch.uint8)
    loss = make(name)
    torch.autograd.grad(loss(x, labels), x)
    size = x.numel() * x.element_size()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    value = loss(x, labels)
    assert torch.cuda.memory_allocated() - before < 0.01 * size
    torch.autograd.grad(value, x)
    assert torch.cuda.max_memory_allocated() - before < 1.02 * size


@pytest.mark.slow
def test_more_numbers_than_an_int32_counts():
    """A class, and so an offset, beyond 2**31: the sums are those of the halves, and the gradient is theirs."""
    voxels = 2**30 + 5
    if torch.cuda.get_device_properties(0).total_memory < 40e9:
        pytest.skip("needs 40 GB on the GPU")
    x = torch.empty(1, 3, voxels, dtype=torch.bfloat16, device="cuda").normal_()
    labels = torch.randint(0, 3, (1, voxels), dtype=torch.uint8, device="cuda")
    wanted: list[SumName] = ["tp", "fp", "fn", "ce"]

    def slopes(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x.requires_grad_()
        values = voxel_sums(x, labels, activation="softmax", wanted=wanted, gamma=0.7).values
        weights = torch.arange(1.0, 1 + values.numel(), device="cuda").view_as(values)
        return values.detach(), torch.autograd.grad((values * weights).sum(), x)[0]

    values, gradient = slopes(x, labels)
    half = voxels // 2
    parts = [slopes(x.detach()[..., a:b].clone(), labels[..., a:b].clone()) for a, b in ((0, half), (half, voxels))]
    torch.testing.assert_close(values, parts[0][0] + parts[1][0], rtol=1e-6, atol=0)
    for piece, (_, expected) in zip((gradient[..., :half], gradient[..., half:]), parts, strict=True):
        assert torch.equal(piece, expected)

"""A whole training step under `torch.compile`: network, loss and backward in one graph, with the eager values.

test_contract.py has the losses alone, traced and not compiled; test_engines.py the operator of the sums for itself.
"""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import ALL, EACH_KIND, KINDS_FIRST, make
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.fx.experimental.proxy_tensor import make_fx

import unifocal
from unifocal.sums.masks import masks

# torch's own compiler uses what torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ for inductor")


@pytest.fixture(autouse=True)
def forget() -> None:
    torch.compiler.reset()


class Step(nn.Module):
    """A small network with its loss."""

    def __init__(self, loss: nn.Module, channels: int, axes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](2, channels, 3, padding=1)
        self.loss = loss

    def forward(self, images: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        loss: Tensor = self.loss(self.network(images), labels, weights)
        return loss


class Variant:
    """A way to call a loss: what it is made with, and tensors for it."""

    def __init__(self, channels: int = 3, labels: str = "hard", weighted: bool = False, **shared: Any) -> None:
        self.channels, self.labels, self.weighted, self.shared = channels, labels, weighted, shared

    def step(self, name: str) -> Step:
        return Step(make(name, **self.shared), self.channels)

    def tensors(self, n: int = 2, spatial: tuple[int, ...] = (9, 7)) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(n + sum(spatial))
        images = torch.randn(n, 2, *spatial, generator=generator)
        if self.labels == "hard":
            labels = torch.randint(0, max(self.channels, 2), (n, *spatial), generator=generator, dtype=torch.uint8)
        else:
            labels = torch.rand(n, self.channels, *spatial, generator=generator)
            labels = labels / labels.sum(1, keepdim=True) if self.channels > 1 else labels
        if "ignore_index" in self.shared:
            labels[:, :2] = self.shared["ignore_index"]
        weights = torch.rand(n, *spatial, generator=generator)
        return (images, labels, weights) if self.weighted else (images, labels)


VARIANTS = {
    "softmax": Variant(),
    "ignore_index": Variant(ignore_index=255),
    "soft labels, weights": Variant(labels="soft", weighted=True, class_weights=[1.0, 2.0, 3.0]),
    "one channel": Variant(channels=1, weighted=True),
    "sigmoid, pooled": Variant(channels=2, labels="soft", activation="sigmoid", batch=True, absent="skip"),
    "no background": Variant(include_background=False, reduction="sum"),
}


def train(step: Callable[..., Tensor], module: Step, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The value of one step, and the gradient of every parameter."""
    module.zero_grad()
    value = step(*tensors)
    value.sum().backward()
    return [value.detach()] + [p.grad.clone() for p in module.parameters() if p.grad is not None]


def check(step: Callable[..., Tensor], module: Step, tensors: tuple[Tensor, ...], rtol: float = 1e-5) -> None:
    """Compiled and eager agree to what the order of float32 additions leaves."""
    got, wanted = train(step, module, tensors), train(module, module, tensors)
    assert len(got) == len(wanted) == 3
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["unified-focal", "adaptive-focal"])
def test_a_training_step_in_one_graph(name, variant):
    """Of the other losses the graph without a network is looked at below, in all variants."""
    given = VARIANTS[variant]
    module = given.step(name)
    backend = CompileCounterWithBackend("aot_eager")
    check(torch.compile(module, backend=backend, fullgraph=True), module, given.tensors())
    assert backend.frame_count == 1


SIZES = ((4, (9, 7)), (3, (12, 5)), (5, (6, 11)), (7, (33, 8)))  # none of them a number of channels


@pytest.mark.parametrize("name", EACH_KIND)
def test_one_graph_serves_every_size(name):
    module = Step(make(name, ignore_index=255), 3)
    given = Variant(ignore_index=255, weighted=True)
    backend = CompileCounterWithBackend("aot_eager")
    step = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    check(step, module, given.tensors(*SIZES[0]))
    first = backend.frame_count  # the compiler may start afresh once it has seen what floats are used for
    for size in SIZES:
        check(step, module, given.tensors(*size))
    assert backend.frame_count == first <= 2


@pytest.mark.parametrize("name", ["cross-entropy", "unified-focal", "adaptive-focal"])
def test_without_being_told_it_is_compiled_twice_at_most(name):
    """The second size makes the first graph a dynamic one, which serves all others. One image alone is a case apart."""
    module, given = Step(make(name), 3), Variant()
    backend = CompileCounterWithBackend("aot_eager")
    step = torch.compile(module, backend=backend, fullgraph=True)
    for size in (*SIZES, SIZES[0]):
        check(step, module, given.tensors(*size))
    assert backend.frame_count <= 2
    check(step, module, given.tensors(1))
    assert backend.frame_count <= 3


@pytest.mark.parametrize("name", KINDS_FIRST)
def test_under_autocast(name):
    """The network is in bfloat16, and the loss takes its logits as they are."""
    module, tensors = Step(make(name), 3), Variant().tensors()
    step = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module.network(tensors[0]).dtype == torch.bfloat16
        check(step, module, tensors, rtol=1e-2)  # the gradient passes through bfloat16
        assert step(*tensors).dtype == torch.float32
        torch.testing.assert_close(step(*tensors), module(*tensors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("name", ["unified-focal", "adaptive-focal"])
def test_in_any_dimension(name, axes):
    module, tensors = Step(make(name), 3, axes), Variant().tensors(2, (9, 7, 5)[:axes])
    check(torch.compile(module, backend="aot_eager", fullgraph=True), module, tensors)


def test_deep_supervision_in_a_step():
    given = Variant()
    step = given.step("unified-focal")
    deep = unifocal.DeepSupervision(step.loss, "nnunet")

    class Heads(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            smaller = nn.functional.interpolate(logits, scale_factor=0.5)
            value: Tensor = deep([logits, smaller, smaller[..., ::2, ::2]], labels, weights)
            return value

    module = Step(Heads(), 3)
    check(torch.compile(module, backend="aot_eager", fullgraph=True), module, given.tensors(2, (12, 8)))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("name", "dynamic"), [("dice-ce", None), ("unified-focal", True), ("adaptive-focal", True)])
def test_compiled_to_the_end(name, dynamic):
    given = Variant(ignore_index=255)
    module = given.step(name)
    step = torch.compile(module, fullgraph=True, dynamic=dynamic)
    check(step, module, given.tensors())
    if dynamic:
        check(step, module, given.tensors(3, (12, 5)))


@pytest.mark.slow
@needs_compiler
def test_compiled_to_the_end_under_autocast():
    module, tensors = Step(make("unified-focal"), 3), Variant(weighted=True).tensors()
    step = torch.compile(module, fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check(step, module, tensors, rtol=2e-2)


# --- what the graph holds --------------------------------------------------------------------------------------------


def graphs(module: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[fx.GraphModule, fx.GraphModule, Tensor]:
    """Forward and backward as a compiler gets them, one of each, and the value; the first tensor has its gradient."""
    caught: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, _: object) -> Any:
        caught.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, partition_fn=min_cut_rematerialization_partition)
    value = torch.compile(module, backend=backend, fullgraph=True)(*tensors)
    value.sum().backward()
    forward, backward = caught
    return forward, backward, value.detach()


def called(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def results(graph: fx.GraphModule) -> list[fx.Node]:
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    return [node for node in output.args[0] if isinstance(node, fx.Node)]


VIEWS = {"view", "reshape", "unsqueeze", "select", "squeeze", "alias", "detach", "expand"}


def is_a_view_of_an_input(node: fx.Node) -> bool:
    while node.op == "call_function" and str(node.target).split(".")[1] in VIEWS:
        node = node.all_input_nodes[0]
    return node.op == "placeholder"


def large(graph: fx.GraphModule, voxels: int) -> list[fx.Node]:
    """Tensors of the size of a volume that are computed, the logits of the network among them."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    found = [n for n in nodes if isinstance(n.meta.get("val"), Tensor) and n.meta["val"].numel() >= voxels]
    return [n for n in found if str(n.target).split(".")[1] not in VIEWS]


class Alone(nn.Module):
    """The loss of logits that need a gradient, as the end of a network."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        value: Tensor = self.loss(logits, labels, weights)
        return value


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, variant) for name in EACH_KIND for variant in VARIANTS),
        *(
            pytest.param(name, list(VARIANTS)[i % len(VARIANTS)], marks=pytest.mark.slow)
            for i, name in enumerate(ALL)
            if name not in EACH_KIND
        ),
    ],
)
def test_nothing_of_the_size_of_a_volume_is_computed_or_kept(name, variant):
    """Between forward and backward only inputs are kept; within, one operator each sees the voxels.

    Both graphs are run, and give the eager values.
    """
    given = VARIANTS[variant]
    images, *rest = given.tensors(2, (31, 33))
    logits = images[:, :1].repeat(1, given.channels, 1, 1).requires_grad_()
    voxels = 31 * 33
    module = Alone(make(name, **given.shared))
    forward, backward, value = graphs(module, (logits, *rest))
    assert called(forward).count("unifocal.sums.default") == 1
    assert called(backward).count("unifocal.sums_backward.default") == 1
    assert large(forward, voxels) == []
    assert [str(node.target) for node in large(backward, voxels)] == ["unifocal.sums_backward.default"]
    kept = [node for node in results(forward) if isinstance(node.meta.get("val"), Tensor)]
    assert all(is_a_view_of_an_input(node) for node in kept if node.meta["val"].numel() >= voxels), kept
    wanted = module(logits, *rest)
    (slope,) = torch.autograd.grad(wanted.sum(), logits)
    assert logits.grad is not None
    for one, other in ((value, wanted.detach()), (logits.grad, slope)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_these_checks_of_the_graph_can_fail():
    """Cross-entropy as PyTorch has it keeps the log-softmax."""
    images, labels = Variant().tensors(2, (31, 33))
    logits = images[:, :1].repeat(1, 3, 1, 1).requires_grad_()
    forward, _, _ = graphs(nn.CrossEntropyLoss(), (logits, labels.long()))
    assert large(forward, 31 * 33)
    kept = [node for node in results(forward) if node.meta["val"].numel() >= 31 * 33]
    assert not all(is_a_view_of_an_input(node) for node in kept)


# --- other tracers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS_FIRST)
def test_exported(name):
    given = Variant(ignore_index=255, weighted=True)
    module, tensors = given.step(name), given.tensors()
    program = torch.export.export(module, tensors)
    assert "torch.ops.unifocal.sums" in program.graph_module.code
    torch.testing.assert_close(program.module()(*tensors), module(*tensors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dice-ce", "unified-focal", "adaptive-focal"])
def test_exported_for_any_size(name):
    module, given = Step(make(name), 3), Variant()
    n, height, width = (torch.export.Dim(axis, min=2, max=64) for axis in ("n", "height", "width"))
    shapes = ({0: n, 2: height, 3: width}, {0: n, 1: height, 2: width})
    program = torch.export.export(module, given.tensors(4), dynamic_shapes=shapes).module()
    for tensors in (given.tensors(), given.tensors(5, (12, 6))):
        torch.testing.assert_close(program(*tensors), module(*tensors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", KINDS_FIRST)
def test_traced_by_make_fx(name, mode):
    """With the gradient in the graph."""
    loss = make(name)
    logits, labels = torch.randn(2, 3, 9, 7), Variant().tensors()[1]

    def step(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.detach().requires_grad_()
        value = loss(logits, labels)
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient

    traced = make_fx(step, tracing_mode=mode)(logits, labels)
    assert {"unifocal.sums.default", "unifocal.sums_backward.default"} <= set(called(traced))
    for one, other in zip(traced(logits, labels), step(logits, labels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["native", "aten", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", ["hard", "dense", "weighted"])
def test_the_operator_of_the_masks_keeps_the_rules_of_operators(form, dtype, engine):
    labels = torch.randint(0, 3, (2, 5, 6))
    weights = torch.rand(2, 5, 6) if form == "weighted" else None
    if form == "dense":
        labels = nn.functional.one_hot(labels, 3).movedim(-1, 1)
    torch.library.opcheck(masks, (labels, weights, 3, None if form == "dense" else 2, [1.0, 0.5], dtype, engine))

"""How many kernels a GPU would launch for a loss: what its algebra on a few sums costs there is its number of steps.

They are counted on a CPU: every operator that computes is a launch, views and allocations are none. The engine is
replaced by one that computes nothing and counts as much as the Triton engine does. The bounds below are what is
reached today; a change may lower them, and should not raise them.
"""

import shutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import ALL, KINDS_FIRST
from torch import Tensor
from torch._inductor import config, metrics
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.utils import run_fw_bw_and_get_code
from torch.utils._python_dispatch import TorchDispatchMode

import unifocal
from unifocal.losses import base, inputs
from unifocal.sums import engines
from unifocal.sums.form import Form

FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"}
FREE |= {"_unsafe_view", "_reshape_alias", "promote_types"}

# (forward, backward) in eager mode, softmax over three channels and sigmoid of one
EAGER: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "cross-entropy": ((7, 3), (6, 3)),
    "focal": ((7, 3), (6, 3)),
    "dice": ((8, 6), (8, 7)),
    "jaccard": ((8, 6), (8, 7)),
    "tversky": ((8, 6), (8, 7)),
    "asymmetric-similarity": ((8, 6), (8, 7)),
    "focal-tversky": ((11, 9), (11, 10)),
    "cosine-tversky": ((10, 8), (10, 9)),
    "combo": ((13, 7), (12, 8)),
    "dice-ce": ((12, 7), (11, 8)),
    "dice-focal": ((12, 7), (11, 8)),
    "mixed-focal": ((15, 10), (14, 11)),
    "hybrid-focal": ((15, 10), (14, 11)),
    "symmetric-focal": ((7, 3), (6, 3)),
    "asymmetric-focal": ((7, 3), (6, 3)),
    "symmetric-focal-tversky": ((11, 9), (11, 10)),
    "asymmetric-focal-tversky": ((11, 9), (11, 10)),
    "symmetric-unified-focal": ((15, 10), (14, 11)),
    "unified-focal": ((15, 10), (14, 11)),
    "generalised-focal": ((15, 10), (14, 11)),
    "adaptive-focal": ((17, 3), (17, 3)),
}
# Of both together, softmax over three channels.
COMPILED: dict[str, int] = {
    "cross-entropy": 5,
    "focal": 5,
    "dice": 6,
    "jaccard": 6,
    "tversky": 6,
    "asymmetric-similarity": 6,
    "focal-tversky": 6,
    "cosine-tversky": 6,
    "combo": 7,
    "dice-ce": 7,
    "dice-focal": 7,
    "mixed-focal": 7,
    "hybrid-focal": 7,
    "symmetric-focal": 6,
    "asymmetric-focal": 6,
    "symmetric-focal-tversky": 6,
    "asymmetric-focal-tversky": 7,
    "symmetric-unified-focal": 8,
    "unified-focal": 8,
    "generalised-focal": 8,
    "adaptive-focal": 9,
}
CALLS = ("torch.ops.", "extern_kernels.")  # how a compiled graph calls what was not compiled
OWN = "torch.ops.unifocal."  # among these calls: those of the engine, which counts its launches itself


class Launches(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in FREE:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Nothing(ModuleType):
    """An engine that allocates its results and says how many kernels Triton would have launched."""

    def __init__(self) -> None:
        super().__init__("nothing")
        self.launches = 0

    def why_not(self, *_: object) -> None:
        return None

    def forward(
        self, x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]:
        self.launches += 2
        n, k, _ = x.shape
        return gamma.new_empty(len(form.wanted), n, k), gamma.new_empty(n, k), gamma.new_empty(n, 1)

    def backward(self, upstream: Tensor, x: Tensor, *_: object) -> Tensor:
        self.launches += 1
        return torch.empty_like(x)

    def masks(self, labels: Tensor, weights: Tensor | None, channels: int, *more: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.launches += 2
        n, dtype = labels.shape[0], more[-1]
        new = labels.new_empty
        return new((n, channels), dtype=dtype), new((n, channels), dtype=dtype), new((n, 1), dtype=dtype)


@pytest.fixture
def engine(monkeypatch) -> Iterator[Nothing]:
    """Everything goes its way on a GPU: no engine of the CPU, and no look at the values."""
    nothing = Nothing()
    monkeypatch.setattr(engines, "ENGINES", {"nothing": nothing})
    for module in (inputs, base):
        monkeypatch.setattr(module, "values_are_checked", lambda _: False)
    yield nothing


def volumes(channels: int) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, max(channels, 2), (2, 4, 5), dtype=torch.uint8)
    return torch.randn(2, channels, 4, 5, requires_grad=True), labels


def launches(engine: Nothing, step: Callable[[], Tensor]) -> tuple[Tensor, list[str]]:
    engine.launches = 0
    with Launches() as counted:
        result = step()
    return result, counted.names + ["the engine"] * engine.launches


@pytest.mark.parametrize("channels", [3, 1], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("name", ALL)
def test_no_more_launches_than_before(name, channels, engine):
    loss = unifocal.build(name)
    x, labels = volumes(channels)
    loss(x, labels)  # constants are made once
    value, forward = launches(engine, lambda: loss(x, labels))
    _, backward = launches(engine, lambda: torch.autograd.grad(value, x)[0])
    most = EAGER[name][0 if channels == 3 else 1]
    assert len(forward) <= most[0] and len(backward) <= most[1], (
        f"{len(forward)}: {forward}\n{len(backward)}: {backward}"
    )


def test_every_loss_has_a_bound():
    assert set(EAGER) == set(ALL) == set(COMPILED)


def test_the_count_counts(engine):
    x = torch.ones(3, requires_grad=True)
    value, forward = launches(engine, lambda: (x[1:].view(2, 1) * 2).exp().sum())
    _, backward = launches(engine, lambda: torch.autograd.grad(value, x)[0])
    assert forward == ["mul", "exp", "sum"]
    assert backward == ["ones_like", "mul", "mul", "slice_backward"]


# --- compiled --------------------------------------------------------------------------------------------------------


# torch's own compiler uses what torch has deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="there is no g++, which inductor asks for before it does anything"
)
@pytest.mark.parametrize("name", KINDS_FIRST)
def test_no_more_launches_than_before_when_compiled(name, engine, monkeypatch):
    """Kernels that inductor would make for a CPU, where it fuses as for a GPU. Here their code is not even compiled."""
    monkeypatch.setattr(AsyncCompile, "cpp_pybinding", lambda *_, **__: lambda *_: None)
    torch.compiler.reset()
    metrics.reset()
    loss = torch.compile(unifocal.build(name), fullgraph=True)
    x, labels = volumes(3)
    # without vectors, as the remainder of a vectorised loop would count as one more; by a setting that leaves no cache
    with config.patch({"fx_graph_cache": False, "cpp.simdlen": 1}):
        _, codes = run_fw_bw_and_get_code(lambda: loss(x, labels))
    calls = [line.split(" = ")[-1] for code in codes for line in made(code)]
    called = sum(call.startswith(CALLS) and not call.startswith(OWN) for call in calls)
    found = metrics.generated_kernel_count + called + engine.launches
    assert found <= COMPILED[name], codes


def made(code: str) -> list[str]:
    """The lines of a compiled graph that are run in each call."""
    body = code[code.index("def call(") :]
    return [line.strip() for line in body[: body.index("return (")].splitlines()]

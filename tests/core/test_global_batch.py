"""A batch that is spread over processes is one batch: batch="global" under real DistributedDataParallel.

Two processes of gloo, started from this file, compute every case with uneven shares; one process with the whole batch
says what they must agree with.
"""

import datetime
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from cases import ALL, ENTROPY, make, volume
from torch import Tensor, distributed, nn

import unifocal
from unifocal.losses.base import _SumOverProcesses

PROCESSES = 2
SECONDS = 120  # nothing here may hang
LOOPBACK = "GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0"  # a machine's name need not lead to itself
IMAGES = 4
HERE = 3  # images of the first process, unless a setting says otherwise

# setting: channels, images of the first process, shared arguments
SETTINGS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "softmax": (3, HERE, {}),
    "one channel": (1, HERE, {}),
    "sigmoid": (2, HERE, {"activation": "sigmoid"}),
    "even": (3, 2, {}),
    "ignored there": (3, HERE, {"ignore_index": 255}),  # the only image of the second process has no valid voxel
    "weightless here": (3, HERE, {"class_weights": [0.5, 1.5, 2.0]}),  # nor have two of the first, by their weights
    "absent there": (3, HERE, {"absent": "skip", "include_background": False, "class_weights": [0.5, 1.5, 2.0]}),
    "absent everywhere": (3, HERE, {"absent": "skip"}),
    "no image there": (3, IMAGES, {}),
    "nothing valid": (3, HERE, {"ignore_index": 255}),
    "sum": (3, HERE, {"ignore_index": 255, "reduction": "sum"}),
    "none": (3, HERE, {"ignore_index": 255, "reduction": "none"}),
}
Result = dict[str, Any]
Results = dict[tuple[str, ...], Result]  # of every name and setting


def data(setting: str) -> tuple[Tensor, ...]:
    """Images, labels and, in some settings, the weights of voxels of the whole batch."""
    channels, _, shared = SETTINGS[setting]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((IMAGES, 2, 4, 3), generator=generator, dtype=torch.float64)
    _, labels = volume(channels, images=IMAGES)
    if "ignore_index" in shared:
        labels[0, 1:3] = 255
        labels[3] = 255
    if setting == "absent there":
        labels[[0, 2, 3]] %= 2  # class 2 is only in an image of the first process
    if setting == "absent everywhere":
        labels %= 2
    if setting == "nothing valid":
        labels[:] = 255
    if setting == "sigmoid":
        labels = torch.stack([labels == 1, labels == 0], 1).long()
    if setting != "weightless here":
        return images, labels
    weights = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    weights[:2] = 0
    weights[2, :2] = 0
    return images, labels, weights


def network(channels: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, channels, 1)).double()


def learn(
    loss: Callable[..., Tensor], setting: str, model: nn.Module, own: slice = slice(None), factor: float = 1
) -> Result:
    """What a process gets that has its own images of the batch; `factor` scales the sum of its values."""
    images, *targets = (x[own] for x in data(setting))
    with messages() as forward:
        value = loss(model(images), *targets)
    with messages() as backward:
        (factor * value.sum()).backward()
    with messages() as inference, torch.inference_mode():
        validation = loss(model(images), *targets)
    return {
        "value": value.detach(),
        "gradient": gradient_of(model),
        "validation": validation.clone(),
        "messages": (sizes(forward), sizes(backward), sizes(inference)),
    }


def gradient_of(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def messages() -> Any:
    """Watch the package's reductions over processes; DistributedDataParallel goes its own way."""
    return mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce)


def sizes(watched: mock.Mock) -> list[int]:
    return [call.args[0].numel() for call in watched.call_args_list]


def of_two_scales(loss: nn.Module) -> Callable[..., Tensor]:
    deep = unifocal.DeepSupervision(loss, weights=[1.0, 0.5])
    return lambda z, labels: deep([z, z[..., ::2, ::2]], labels)


# --- in a process of its own ---------------------------------------------------------------------------------------


def share(rank: int, setting: str) -> slice:
    here = SETTINGS[setting][1]
    return slice(0, here) if rank == 0 else slice(here, IMAGES)


def parallel(channels: int) -> nn.Module:
    return nn.parallel.DistributedDataParallel(network(channels))


def results_of(rank: int) -> Results:
    results: Results = {}
    for setting, (channels, _, shared) in SETTINGS.items():
        factor = PROCESSES if shared.get("reduction") == "none" else 1
        for name in ALL:
            loss = make(name, batch="global", **shared)
            results[name, setting] = learn(loss, setting, parallel(channels), share(rank, setting), factor)
    own = share(rank, "softmax")
    for name in ALL:
        results[name, "apart"] = learn(make(name, batch=True), "softmax", parallel(3), own)
    deep = of_two_scales(make("unified-focal", batch="global"))
    results["deep",] = learn(deep, "softmax", parallel(3), own)
    results["compiled",] = compiled(own)
    return results


def compiled(own: slice) -> Result:
    loss = torch.compile(make("unified-focal", batch="global"), fullgraph=True, backend="aot_eager")
    images, labels = (x[own] for x in data("softmax"))
    model = parallel(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        value = loss(model(images), labels)
        value.backward()
    return {"value": value.detach(), "gradient": gradient_of(model)}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=PROCESSES,
        timeout=datetime.timedelta(seconds=SECONDS / 2),
    )
    try:
        torch.save(results_of(rank), folder / f"{rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


# --- the tests -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shares(tmp_path_factory) -> list[Results]:
    """The results of every process."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | dict([LOOPBACK]) | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        output = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * PROCESSES, "\n".join(output)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def alone(name: str, setting: str) -> Result:
    channels, _, shared = SETTINGS[setting]
    return learn(make(name, batch=True, **shared), setting, network(channels))


def mean(results: list[Result], key: str) -> Tensor:
    return torch.stack([result[key] for result in results]).mean(0)


def assert_same(results: list[Result], whole: Result) -> None:
    for result in results:  # what DistributedDataParallel has averaged
        torch.testing.assert_close(result["gradient"], whole["gradient"], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(mean(results, "value"), whole["value"], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "none"])
@pytest.mark.parametrize("name", ALL)
def test_processes_learn_what_one_learns_from_the_whole_batch(name, setting, shares):
    results, whole = [share[name, setting] for share in shares], alone(name, setting)
    assert_same(results, whole)
    torch.testing.assert_close(mean(results, "validation"), whole["value"], rtol=1e-10, atol=1e-13)
    assert (whole["gradient"].abs().max() > 1e-4) != (setting == "nothing valid")


@pytest.mark.parametrize("name", ALL)
def test_without_reduction_every_process_has_its_own_images(name, shares):
    results, whole = [share[name, "none"] for share in shares], alone(name, "none")
    for key in ("value", "validation"):
        values = torch.cat([result[key] for result in results])
        torch.testing.assert_close(values, whole["value"], rtol=1e-10, atol=1e-13)
    for result in results:
        torch.testing.assert_close(result["gradient"], whole["gradient"], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_batches_of_their_own_teach_something_else(name, shares):
    wrong, whole = shares[0][name, "apart"]["gradient"], alone(name, "softmax")["gradient"]
    assert (wrong - whole).abs().max() > 1e-2 * whole.abs().max()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ALL)
def test_one_small_message_each_way(name, setting, shares):
    channels = SETTINGS[setting][0]
    split = setting in ("one channel", "sigmoid") or name == "adaptive-focal"
    sums = 0 if name in ENTROPY else 4 if split else 3  # tp, fp and fn; tn where a channel is two classes
    numbers = [sums * channels + 1]  # and the number of images
    for results in shares:
        assert results[name, setting]["messages"] == (numbers, [] if name in ENTROPY else numbers, numbers)
        assert results[name, "apart"]["messages"] == ([], [], [])


def test_scales_are_pooled_each(shares):
    whole = learn(of_two_scales(make("unified-focal", batch=True)), "softmax", network(3))
    assert_same([results["deep",] for results in shares], whole)
    assert [len(sent) for sent in shares[0]["deep",]["messages"]] == [2, 2, 2]


def test_a_compiled_loss_is_one_graph_with_the_same_gradient(shares):
    assert_same([results["compiled",] for results in shares], alone("unified-focal", "softmax"))


@pytest.fixture
def group_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv(*LOOPBACK)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", ALL)
def test_without_a_group_the_batch_is_the_whole(name):
    assert_is_alone(name)


def test_alone_in_a_group_the_batch_is_the_whole(group_of_one):
    for name in ALL:
        assert_is_alone(name)


def assert_is_alone(name: str) -> None:
    loss = make(name, batch="global", ignore_index=255)
    result, whole = learn(loss, "ignored there", network(3)), alone(name, "ignored there")
    assert torch.equal(result["value"], whole["value"])
    assert torch.equal(result["gradient"], whole["gradient"])
    assert result["messages"] == ([], [], [])


def test_pooled_sums_can_be_differentiated_twice_and_under_torch_func(group_of_one):
    x = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: _SumOverProcesses.apply(t).pow(3), x)
    slope = torch.func.grad(lambda t: _SumOverProcesses.apply(t).pow(3).sum())(x.detach())
    torch.testing.assert_close(slope, 3 * x.detach() ** 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [("globl", ["Did you mean 'global'?"]), (1, ["got 1."]), (None, ["got None."]), (torch.tensor(1), ["tensor(1)"])],
    ids=str,
)
def test_wrong_argument_is_explained(value, words):
    with pytest.raises(TypeError) as error:
        unifocal.DiceLoss(batch=value)
    for word in ["DiceLoss: batch must be True or False or 'global'", *words]:
        assert word in str(error.value)


def test_argument_is_kept_and_shown():
    assert unifocal.DiceLoss(batch="global").batch == "global"
    assert repr(unifocal.DiceLoss(batch="global")) == "DiceLoss(batch='global')"


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))

"""One run: it goes on after a stop as if there had been none, and its predictions lie right way up."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_tiny, read_data

from unifocal.lab import training
from unifocal.lab.comparison import is_finished, make_plan
from unifocal.lab.data.masks import read_mask
from unifocal.lab.errors import Terminated
from unifocal.lab.metrics import METRICS, measure
from unifocal.lab.settings import Run
from unifocal.lab.training import NotFinite, execute, prediction_file, read_prediction, to_grid

EPOCHS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set, its plan, and the result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("world")
    dataset = read_data(folder / "data")
    settings = make_tiny("unified-focal", epochs=EPOCHS)
    plan = make_plan(dataset, settings)
    run = Run(settings.losses[0], 0, settings, "data", "split")
    execute(run, dataset, plan.data, plan.splits[0], folder / "straight")
    return dataset, plan, run, folder / "straight"


class Stop(Exception):
    pass


def stop_after(epoch, error):
    def tell(row):
        if row["epoch"] == epoch:
            raise error

    return tell


def test_sigterm_is_neither_success_nor_failure_and_the_run_goes_on(world, tmp_path):
    """What a scheduler sends before it takes the machine away."""
    dataset, plan, run, straight = world
    arguments = (run, dataset, plan.data, plan.splits[0], tmp_path)

    def tell(row):
        if row["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        execute(*arguments, tell)
    assert not (tmp_path / "result.json").exists()
    execute(*arguments)
    assert_same_result(straight, tmp_path)


def test_a_damaged_checkpoint_costs_the_run_and_not_the_comparison(world, tmp_path):
    dataset, plan, run, straight = world
    arguments = (run, dataset, plan.data, plan.splits[0], tmp_path)
    with pytest.raises(Stop):
        execute(*arguments, stop_after(2, Stop()))
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:3000])
    execute(*arguments)
    assert_same_result(straight, tmp_path)


@pytest.mark.parametrize("lost", ["cases.csv", "predictions"])
def test_a_finished_run_that_lost_a_part_is_measured_again_and_not_trained(world, tmp_path, lost):
    dataset, plan, run, straight = world
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not is_finished(tmp_path / "run")
    trained: list[object] = []
    execute(run, dataset, plan.data, plan.splits[0], tmp_path / "run", trained.append)
    assert not trained
    assert is_finished(tmp_path / "run")
    assert_same_result(straight, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == (straight / "result.json").read_bytes()


def weights(folder):
    return torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]


def assert_same_result(left, right):
    columns = ["epoch", "train_loss", "validation_loss", "learning_rate"]
    histories = [pd.read_csv(folder / "history.csv")[columns] for folder in (left, right)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert weights(left).keys() == weights(right).keys()
    assert all(torch.equal(value, weights(right)[key]) for key, value in weights(left).items())
    assert (left / "cases.csv").read_bytes() == (right / "cases.csv").read_bytes()


@pytest.mark.parametrize("epoch", [0, 1, EPOCHS - 1])
@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(world, tmp_path, epoch, error):
    dataset, plan, run, straight = world
    arguments = (run, dataset, plan.data, plan.splits[0], tmp_path)
    on_interrupt = signal.getsignal(signal.SIGINT)
    # `tell` is called before the epoch's checkpoint is written, so `epoch` itself must be repeated.
    with pytest.raises(type(error)):
        execute(*arguments, stop_after(epoch, error))
    assert signal.getsignal(signal.SIGINT) is on_interrupt, "Lightning has switched Ctrl-C off"
    assert not (tmp_path / "result.json").exists()
    repeated: list[float] = []
    execute(*arguments, lambda row: repeated.append(row["epoch"]))
    assert repeated == list(range(epoch, EPOCHS))
    assert_same_result(straight, tmp_path)


def test_a_stop_after_training_repeats_the_evaluation_only(world, tmp_path, monkeypatch):
    dataset, plan, run, straight = world
    arguments = (run, dataset, plan.data, plan.splits[0], tmp_path)

    def fail(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", fail)
        with pytest.raises(Stop):
            execute(*arguments)
    repeated: list[object] = []
    execute(*arguments, repeated.append)
    assert repeated == []
    assert_same_result(straight, tmp_path)


def test_the_best_score_survives_a_stop_and_a_move(world, tmp_path):
    """After a resume in another place a worse epoch must not become the best."""
    dataset, plan, run, straight = world
    arguments = (run, dataset, plan.data, plan.splits[0])
    with pytest.raises(Stop):
        execute(*arguments, tmp_path / "old", stop_after(2, Stop()))
    (tmp_path / "old").rename(tmp_path / "new")
    execute(*arguments, tmp_path / "new")
    assert_same_result(straight, tmp_path / "new")
    best = json.loads((tmp_path / "new/result.json").read_text())
    history = pd.read_csv(tmp_path / "new/history.csv")
    assert best["best_epoch"] == history["validation_loss"].idxmin()


def test_best_is_the_lowest_validation_loss_even_if_it_comes_early(tmp_path):
    """A learning rate that spoils the network: the last epoch is not the best, and not what is kept."""
    dataset = read_data(tmp_path / "data")
    settings = make_tiny("dice", epochs=4, learning_rate=3.0, augment=False)
    plan = make_plan(dataset, settings)
    run = Run(settings.losses[0], 0, settings, "data", "split")
    execute(run, dataset, plan.data, plan.splits[0], tmp_path / "run")
    history = pd.read_csv(tmp_path / "run/history.csv")
    best = json.loads((tmp_path / "run/result.json").read_text())
    assert best["best_epoch"] == history["validation_loss"].idxmin()
    assert best["validation_loss"] == history["validation_loss"].min()


def test_the_learning_rate_decays_polynomially(world):
    history = pd.read_csv(world[3] / "history.csv")
    expected = [0.01 * (1 - epoch / EPOCHS) ** 0.9 for epoch in range(EPOCHS)]
    assert list(history["learning_rate"]) == pytest.approx(expected)
    assert (history["train_loss"] > 0).all()


def test_what_a_finished_run_leaves(world):
    dataset, plan, run, folder = world
    names = {path.name for path in folder.iterdir()}
    assert names == {"settings.json", "history.csv", "best.ckpt", "predictions", "cases.csv", "result.json"}
    assert json.loads((folder / "settings.json").read_text()) == run.identity()
    table = pd.read_csv(folder / "cases.csv")
    assert len(table) == len(METRICS) * len(plan.splits[0].test)
    assert set(table["case"].astype(str)) == {dataset.cases[i].id for i in plan.splits[0].test}


def test_the_metrics_are_those_of_the_written_predictions_on_the_original_grid(world):
    dataset, plan, _, folder = world
    table = pd.read_csv(folder / "cases.csv", dtype={"case": str}).set_index(["case", "metric"])["value"]
    for i in plan.splits[0].test:
        case = dataset.cases[i]
        truth = read_mask(case, dataset)
        prediction = read_prediction(folder / "predictions", case.id)
        assert prediction.shape == truth.shape == (40, 48)
        for metric, value in measure(prediction, truth).items():
            assert table[case.id, metric] == pytest.approx(value, nan_ok=True)


def test_the_way_back_to_the_original_grid_is_neither_turned_nor_shifted():
    mask = np.zeros((60, 90), np.uint8)
    mask[4:20, 50:86] = 1
    small = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None].float(), (32, 32), mode="bilinear", antialias=True
    )[0, 0]
    found = to_grid(torch.stack([1 - small, small]), mask.shape)
    assert measure(found, mask)["DSC"] > 0.95
    assert measure(found[::-1], mask)["DSC"] < 0.5 and measure(found[:, ::-1], mask)["DSC"] < 0.5


class Spoilt(torch.nn.Module):
    def forward(self, logits, labels):
        return logits.mean() * float("nan")


def test_a_loss_that_becomes_nan_fails_at_once_and_leaves_no_checkpoint(world, tmp_path, monkeypatch):
    dataset, plan, run, _ = world
    monkeypatch.setattr(type(run.loss), "build", lambda self: Spoilt())
    with pytest.raises(NotFinite, match="epoch 0"):
        execute(run, dataset, plan.data, plan.splits[0], tmp_path)
    assert not list(tmp_path.glob("*.ckpt"))


def test_every_loss_starts_from_the_same_weights_and_sees_the_same_batches(world, tmp_path, monkeypatch):
    dataset, plan, run, _ = world
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    class Recorder(torch.nn.Module):
        def forward(self, logits, labels):
            if logits.requires_grad:
                seen[name].append((logits.detach().clone(), labels.clone()))
            return 0 * logits.sum()  # nothing is learnt, so logits show the first weights

    monkeypatch.setattr(type(run.loss), "build", lambda self: Recorder())
    for name in ("dice", "tversky"):
        seen[name] = []
        other = Run(run.loss.model_copy(update={"name": name}), 0, run.settings, "data", "split")
        torch.rand(len(name))  # whatever was drawn before
        execute(other, dataset, plan.data, plan.splits[0], tmp_path / name)
    assert len(seen["dice"]) == len(seen["tversky"]) > EPOCHS
    for left, right in zip(seen["dice"], seen["tversky"], strict=True):
        assert torch.equal(left[0], right[0]) and torch.equal(left[1], right[1])


def test_nothing_is_printed_and_nothing_lands_in_the_working_folder(world, tmp_path, monkeypatch, capfd, recwarn):
    dataset, plan, run, _ = world
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    execute(run, dataset, plan.data, plan.splits[0], tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "here").iterdir()) and not recwarn.list


def test_no_case_name_leaves_the_folder(tmp_path):
    names = ["benign (1)", "../x", "a/b", "a_b", "ä", "a%2Fb"]
    files = [prediction_file(tmp_path, name) for name in names]
    assert len(set(files)) == len(names)
    assert all(file.parent == tmp_path for file in files)
    assert files[0].name == "benign (1).png"

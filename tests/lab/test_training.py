"""One run: it goes on after a stop as if there had been none, and its predictions lie right way up."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_tiny, read_data

from unifocal.lab.choices import LossChoice
from unifocal.lab.data.masks import read_mask
from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.experiment import plan, read_run, write_run
from unifocal.lab.metrics import METRICS, measure
from unifocal.lab.preparation import read_prediction
from unifocal.lab.progress import listening
from unifocal.lab.training import execute as execution
from unifocal.lab.training.execute import execute, is_finished
from unifocal.lab.training.segmentation import NotFinite, shared_loss

EPOCHS = 4
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A planned data set, a run, and the folder of one that nothing disturbed."""
    folder = tmp_path_factory.mktemp("world")
    settings = make_tiny("unified-focal", epochs=EPOCHS)
    experiment = plan(read_data(folder / "data"), settings, folder / "out")
    run = experiment.runs(settings)[0]
    execute(run, experiment, folder / "straight")
    return experiment, run, folder / "straight"


class Stop(Exception):
    pass


def stop_after(at, error):
    def tell(epoch, loss):
        if epoch == at:
            raise error

    return tell


def listener():
    """Where epochs are noted, and what notes them."""
    seen: list[int] = []
    return seen, lambda epoch, loss: seen.append(epoch)


def test_sigterm_is_neither_success_nor_failure_and_the_run_goes_on(world, tmp_path):
    """What a scheduler sends before it takes the machine away."""
    experiment, run, straight = world
    arguments = (run, experiment, tmp_path)

    def tell(epoch, loss):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        execute(*arguments, tell)
    assert not (tmp_path / "result.json").exists()
    execute(*arguments)
    assert_same_result(straight, tmp_path)


def cut(whole):
    return whole[:3000]


def with_a_hole(whole):
    """Torch reads it without a word."""
    middle = len(whole) // 2
    return whole[:middle] + bytes(200) + whole[middle + 200 :]


@pytest.mark.parametrize("damage", [cut, with_a_hole])
def test_a_damaged_checkpoint_costs_an_epoch_and_two_of_them_the_run(world, tmp_path, damage):
    experiment, run, straight = world
    arguments = (run, experiment, tmp_path)
    with pytest.raises(Stop):
        execute(*arguments, stop_after(2, Stop()))  # the third epoch has no checkpoint
    spoil(tmp_path / "last.ckpt", damage)
    seen, tell = listener()

    def tell_and_stop(epoch, loss):
        tell(epoch, loss)
        stop_after(2, Stop())(epoch, loss)

    with pytest.raises(Stop):
        execute(*arguments, tell_and_stop)
    assert seen == [1, 2] and (tmp_path / "damaged.ckpt").exists()
    for name in ("last.ckpt", "previous.ckpt"):
        spoil(tmp_path / name, damage)
    seen, tell = listener()
    execute(*arguments, tell)
    assert seen == [0, 1, 2, 3]
    assert_same_result(straight, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["damaged.ckpt", "weights.ckpt"]


def test_a_run_says_after_how_many_epochs_it_begins_and_shows_no_others(world, tmp_path):
    experiment, run, _ = world
    told: list[int] = []
    heard = SimpleNamespace(start=told.append, epoch_ended=lambda epoch, loss: None)
    with pytest.raises(Stop):
        execute(run, experiment, tmp_path, stop_after(2, Stop()))
    for path in tmp_path.glob("*.ckpt"):
        spoil(path, cut)
    with listening(heard), pytest.raises(Stop):
        execute(run, experiment, tmp_path, stop_after(0, Stop()))
    assert told == [0] and not (tmp_path / "history.csv").exists()


def spoil(path, damage):
    path.write_bytes(damage(path.read_bytes()))


def test_damaged_weights_are_told(world, tmp_path):
    experiment, run, straight = world
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / "weights.ckpt"
    path.write_bytes(with_a_hole(path.read_bytes()))
    (tmp_path / "run" / "cases.csv").unlink()
    with pytest.raises(LabError, match=r"weights\.ckpt is damaged.* Remove .*run, and train it again"):
        execute(run, experiment, tmp_path / "run")


@pytest.mark.parametrize(
    "lost", ["cases.csv", *(pytest.param(f"{f}.csv", marks=SLOW) for f in ("lesions", "validation"))]
)
@pytest.mark.parametrize("how", ["gone", "cut", "cut at the end of a line", "wrong"])
def test_a_finished_run_that_lost_a_part_is_measured_again_and_not_trained(world, tmp_path, lost, how):
    experiment, run, straight = world
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / lost
    if how == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        line = whole[: whole.rindex(b"\n", 0, -1) + 1]
        wrong = whole[:99] + b"\xff\xfe" + whole[101:]
        path.write_bytes({"cut": whole[:-9], "cut at the end of a line": line, "wrong": wrong}[how])
    assert not is_finished(tmp_path / "run")
    trained, tell = listener()
    execute(run, experiment, tmp_path / "run", tell)
    assert not trained
    assert is_finished(tmp_path / "run")
    assert_same_result(straight, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == (straight / "result.json").read_bytes()


@pytest.mark.parametrize("how", ["gone", "cut", "null"])
def test_a_trained_run_that_lost_its_result_is_not_trained_again(world, tmp_path, how):
    experiment, run, straight = world
    shutil.copytree(straight, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    whole = json.loads(path.read_text())
    if how == "gone":
        path.unlink()
    else:
        path.write_text("null" if how == "null" else path.read_text()[:-30])
    trained, tell = listener()
    execute(run, experiment, tmp_path / "run", tell)
    assert not trained
    assert is_finished(tmp_path / "run")
    assert_same_result(straight, tmp_path / "run")
    of_history = ("status", "seconds", "seconds_per_epoch", "epochs", "best_epoch", "validation_loss", "rows")
    found = json.loads(path.read_text())
    assert {name: found[name] for name in of_history} == {name: whole[name] for name in of_history}
    assert found["device"] == "unknown", "nobody knows any more"


@pytest.mark.parametrize("left", ["a checkpoint", "no weights", "damaged weights", "a short history"])
def test_without_a_result_a_run_that_may_not_be_over_is_trained(world, tmp_path, left):
    experiment, run, straight = world
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    (folder / "result.json").unlink()
    if left == "a checkpoint":
        (folder / "last.ckpt").write_bytes(b"")
    elif left == "a short history":
        pd.read_csv(folder / "history.csv")[:-1].to_csv(folder / "history.csv", index=False)
    else:
        (folder / "weights.ckpt").unlink()
        if left == "damaged weights":
            (folder / "weights.ckpt").write_bytes(b"PK")
    trained, tell = listener()
    execute(run, experiment, folder, tell)
    assert trained == list(range(EPOCHS))
    assert_same_result(straight, folder)


def weights(folder):
    return torch.load(folder / "weights.ckpt", weights_only=True)["state_dict"]


def assert_same_result(left, right):
    columns = ["epoch", "train_loss", "validation_loss", "learning_rate"]
    histories = [pd.read_csv(folder / "history.csv")[columns] for folder in (left, right)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert weights(left).keys() == weights(right).keys()
    assert all(torch.equal(value, weights(right)[key]) for key, value in weights(left).items())
    assert (left / "cases.csv").read_bytes() == (right / "cases.csv").read_bytes()


@pytest.mark.parametrize("epoch", [pytest.param(0, marks=SLOW), 1, pytest.param(EPOCHS - 1, marks=SLOW)])
@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(world, tmp_path, epoch, error):
    experiment, run, straight = world
    arguments = (run, experiment, tmp_path)
    on_interrupt = signal.getsignal(signal.SIGINT)
    # `tell` is called before the epoch's checkpoint is written, so `epoch` itself must be repeated.
    with pytest.raises(type(error)):
        execute(*arguments, stop_after(epoch, error))
    assert signal.getsignal(signal.SIGINT) is on_interrupt, "Lightning has switched Ctrl-C off"
    assert not (tmp_path / "result.json").exists()
    repeated, tell = listener()
    execute(*arguments, tell)
    assert repeated == list(range(epoch, EPOCHS))
    assert_same_result(straight, tmp_path)


def test_a_kill_between_the_last_row_and_its_checkpoint_repeats_the_last_epoch(world, tmp_path):
    """`history.csv` says that all is done; the weights of the last epoch, here the best, were not written yet."""
    experiment, run, straight = world
    assert json.loads((straight / "result.json").read_text())["best_epoch"] == EPOCHS - 1, "the test shows nothing"
    with pytest.raises(Stop):
        execute(run, experiment, tmp_path, stop_after(EPOCHS - 1, Stop()))
    shutil.copy(straight / "history.csv", tmp_path)
    repeated, tell = listener()
    execute(run, experiment, tmp_path, tell)
    assert repeated == [EPOCHS - 1]
    assert_same_result(straight, tmp_path)


def test_a_stop_after_training_repeats_the_evaluation_only(world, tmp_path, monkeypatch):
    experiment, run, straight = world
    arguments = (run, experiment, tmp_path)

    def fail(*_, **__):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(execution, "score", fail)
        with pytest.raises(Stop):
            execute(*arguments)
    repeated, tell = listener()
    execute(*arguments, tell)
    assert repeated == []
    assert_same_result(straight, tmp_path)


def test_the_best_score_survives_a_stop_and_a_move(world, tmp_path):
    """After a resume in another place a worse epoch must not become the best."""
    experiment, run, straight = world
    arguments = (run, experiment)
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
    settings = make_tiny("dice", epochs=4, learning_rate=3.0, augment=False)
    experiment = plan(read_data(tmp_path / "data"), settings, tmp_path / "out")
    execute(experiment.runs(settings)[0], experiment, tmp_path / "run")
    history = pd.read_csv(tmp_path / "run/history.csv")
    best = json.loads((tmp_path / "run/result.json").read_text())
    assert best["best_epoch"] == history["validation_loss"].idxmin()
    assert best["validation_loss"] == history["validation_loss"].min()


def test_the_learning_rate_decays_polynomially(world):
    history = pd.read_csv(world[2] / "history.csv")
    expected = [0.01 * (1 - epoch / EPOCHS) ** 0.9 for epoch in range(EPOCHS)]
    assert list(history["learning_rate"]) == pytest.approx(expected)
    assert (history["train_loss"] > 0).all()


def test_what_a_finished_run_leaves(world):
    experiment, _, folder = world
    names = {path.name for path in folder.iterdir()}
    tables = {"cases.csv", "lesions.csv", "validation.csv"}
    assert names == {"history.csv", "weights.ckpt", "predictions", "result.json", *tables}
    table = pd.read_csv(folder / "cases.csv")
    assert len(table) == len(METRICS) * len(experiment.splits[0].test)
    assert set(table["case"].astype(str)) == {experiment.dataset.cases[i].id for i in experiment.splits[0].test}


def test_what_a_run_takes_beyond_its_epochs_is_told_of_one_that_went_on_too(world, tmp_path):
    experiment, run, _ = world
    with pytest.raises(Stop):
        execute(run, experiment, tmp_path, stop_after(2, Stop()))
    history = pd.read_csv(tmp_path / "history.csv").assign(seconds=1000.0)  # what was before does not count
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)
    state["history"] = history.iloc[:2].to_dict("records")
    torch.save(state, tmp_path / "last.ckpt")
    started = time.perf_counter()
    execute(run, experiment, tmp_path)
    whole = time.perf_counter() - started
    result = json.loads((tmp_path / "result.json").read_text())
    here = pd.read_csv(tmp_path / "history.csv")["seconds"][2:]
    parts = len(here) * here.median() + result["seconds_starting"] + result["seconds_scoring"]
    assert 0.8 * whole < parts <= whole and result["seconds_scoring"] > 0


def test_the_metrics_are_those_of_the_written_predictions_on_the_original_grid(world):
    experiment, _, folder = world
    table = pd.read_csv(folder / "cases.csv", dtype={"case": str}).set_index(["case", "metric"])["value"]
    for i in experiment.splits[0].test:
        case = experiment.dataset.cases[i]
        truth = read_mask(case, experiment.dataset)
        prediction = read_prediction(folder / "predictions", case.id)
        assert prediction.shape == truth.shape == (40, 48)
        for metric, value in measure(prediction, truth).items():
            assert table[case.id, metric] == pytest.approx(value, nan_ok=True)


class Spoilt(torch.nn.Module):
    def forward(self, logits, labels):
        return logits.mean() * float("nan")


def test_a_loss_that_becomes_nan_fails_at_once_and_leaves_no_checkpoint(world, tmp_path, monkeypatch):
    experiment, run, _ = world
    monkeypatch.setattr(LossChoice, "build", lambda self, **_: Spoilt())
    with pytest.raises(NotFinite, match="epoch 0"):
        execute(run, experiment, tmp_path)
    assert not list(tmp_path.glob("*.ckpt"))


def test_every_loss_starts_from_the_same_weights_and_sees_the_same_batches(world, tmp_path, monkeypatch):
    experiment, run, _ = world
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    class Recorder(torch.nn.Module):
        def forward(self, logits, labels):
            if logits.requires_grad:
                seen[name].append((logits.detach().clone(), labels.clone()))
            return 0 * logits.sum()  # nothing is learnt, so logits show the first weights

    monkeypatch.setattr(LossChoice, "build", lambda self, **_: Recorder())
    for name in ("dice", "tversky"):
        seen[name] = []
        other = replace(run, loss=LossChoice(name=name))
        torch.rand(len(name))  # whatever was drawn before
        execute(other, experiment, tmp_path / name)
    assert len(seen["dice"]) == len(seen["tversky"]) > EPOCHS
    for left, right in zip(seen["dice"], seen["tversky"], strict=True):
        assert torch.equal(left[0], right[0]) and torch.equal(left[1], right[1])


def test_nothing_is_printed_and_nothing_lands_in_the_working_folder(world, tmp_path, monkeypatch, capfd, recwarn):
    experiment, run, _ = world
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    execute(run, experiment, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "here").iterdir()) and not recwarn.list


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    return read_data(folder / "data"), folder / "out"


def trained(planned, tmp_path, **changes):
    """The history and the result of a run with other settings."""
    settings = make_tiny("dice", **changes)
    experiment = plan(planned[0], settings, planned[1])
    execute(experiment.runs(settings)[0], experiment, tmp_path)
    return pd.read_csv(tmp_path / "history.csv"), json.loads((tmp_path / "result.json").read_text())


def test_a_planned_run_reads_back_as_the_same(planned):
    settings = make_tiny("unified-focal:gamma=0.2,dice", networks="unet:width=8", seeds="3,5", patch="32")
    experiment = plan(planned[0], settings, planned[1])
    for run in experiment.runs(settings):
        write_run(experiment, run)
        again, same = read_run(experiment.folder, run.name)
        assert same == run and same.name == run.name
        assert again == experiment


def test_early_stop_ends_after_so_many_epochs_without_a_better_one(planned, tmp_path):
    history, result = trained(planned, tmp_path, epochs=30, early_stop=2, learning_rate=3.0, augment=False)
    assert len(history) < 30
    assert result["epochs"] == len(history) == result["best_epoch"] + 3


def test_plateau_divides_the_learning_rate_by_ten_after_patience(planned, tmp_path):
    changes = {"epochs": 8, "schedule": "plateau", "patience": 1, "learning_rate": 3.0, "augment": False}
    history, _ = trained(planned, tmp_path, **changes)
    rate, best, waited = 3.0, np.inf, 0
    for row in history.itertuples():
        assert row.learning_rate == pytest.approx(rate)
        if row.validation_loss < best * (1 - 1e-4):  # torch's threshold
            best, waited = row.validation_loss, 0
        else:
            waited += 1
        if waited > 1:
            rate, waited = rate / 10, 0
    assert rate < 3.0, "the test shows nothing"


@pytest.mark.parametrize("schedule", ["plateau", *(pytest.param(s, marks=SLOW) for s in ("cosine", "constant"))])
def test_every_schedule_survives_a_stop(planned, tmp_path, schedule):
    settings = make_tiny("dice", epochs=4, schedule=schedule, patience=1, optimiser="adam", learning_rate=0.05)
    experiment = plan(planned[0], settings, planned[1])
    run = experiment.runs(settings)[0]
    execute(run, experiment, tmp_path / "straight")
    with pytest.raises(Stop):
        execute(run, experiment, tmp_path / "stopped", stop_after(2, Stop()))
    execute(run, experiment, tmp_path / "stopped")
    assert_same_result(tmp_path / "straight", tmp_path / "stopped")


def test_accumulated_steps_are_one_larger_batch(planned, tmp_path):
    """In a network that norms each image on its own, and with a loss that is a mean over images."""
    changes = {"epochs": 1, "augment": False}  # 5 cases to train on
    one, _ = trained(planned, tmp_path / "one", batch_size=5, **changes)
    two, _ = trained(planned, tmp_path / "two", batch_size=1, accumulate=5, **changes)
    left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["validation_loss"][0] == pytest.approx(two["validation_loss"][0], rel=1e-5)
    for key, value in left.items():
        torch.testing.assert_close(value, right[key], rtol=1e-4, atol=1e-6)


def test_the_last_weights_are_kept_on_request(planned, tmp_path):
    changes = {"epochs": 8, "learning_rate": 3.0, "augment": False}
    trained(planned, tmp_path / "last", keep="last", **changes)
    _, result = trained(planned, tmp_path / "best", **changes)
    assert result["best_epoch"] < 7, "the test shows nothing"
    assert any(not torch.equal(v, weights(tmp_path / "best")[k]) for k, v in weights(tmp_path / "last").items())


def test_curves_for_tensorboard_are_written_into_the_run(planned, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history, _ = trained(planned, tmp_path, epochs=3, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    written = [event.value for event in events.Scalars("validation_loss")]
    assert written == pytest.approx(history["validation_loss"].tolist(), rel=1e-5)
    assert {"train_loss", "learning_rate"} <= set(events.Tags()["scalars"])


def test_deep_supervision_bf16_and_gradient_clipping_train(planned, tmp_path):
    changes = {"deep_supervision": "papers", "precision": "bf16", "clip_gradient": 0.5, "initialisation": "xavier"}
    history, _ = trained(planned, tmp_path, epochs=2, **changes)
    assert np.isfinite(history.to_numpy()).all()


def test_every_image_counts_the_same_in_uneven_parts_of_a_batch(monkeypatch):
    """Of three images one process has two and the other one; DDP takes the mean of what both give."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda number: number.fill_(3.0))
    first, second = shared_loss(torch.tensor(0.3), 2), shared_loss(torch.tensor(0.9), 1)
    assert (first + second) / 2 == pytest.approx((0.3 + 0.3 + 0.9) / 3)


@pytest.mark.slow
def test_two_processes_share_a_run_and_end_where_one_does(tmp_path, capfd):
    """DDP on the CPU: each takes its part of every batch, and they need not be equal; the order of sums differs."""
    planned = read_data(tmp_path / "data", n=12), tmp_path / "out"
    changes = {"epochs": 2, "augment": False, "batch_size": 3, "learning_rate": 0.5}
    one, _ = trained(planned, tmp_path / "one", **changes)
    two, _ = trained(planned, tmp_path / "two", devices=2, **changes)
    columns = ["train_loss", "validation_loss", "learning_rate"]
    np.testing.assert_allclose(one[columns], two[columns], rtol=1e-4)
    assert "ightning" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("left", ['{"loss": "di', "null", "{}"])
def test_a_damaged_plan_of_a_run_is_written_anew(world, tmp_path, left):
    experiment, run, _ = world
    experiment = replace(experiment, folder=tmp_path)
    write_run(experiment, run)
    [path] = tmp_path.glob("runs/*/run.json")
    whole = path.read_bytes()
    path.write_text(left)
    write_run(experiment, run)
    assert path.read_bytes() == whole

"""The grid: nothing is done twice, nothing stops the rest, and the picture is upright."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import make_tiny, read_data, write_data

from unifocal.lab import pictures
from unifocal.lab.cells import explain, run_cell
from unifocal.lab.choices import LossChoice
from unifocal.lab.comparison import check_losses, compare
from unifocal.lab.configuration import settings_from
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError
from unifocal.lab.metrics import METRICS
from unifocal.lab.progress import Watcher
from unifocal.lab.report import command, write_summary
from unifocal.lab.results import COLUMNS, read_table
from unifocal.lab.statistics.intervals import summarise


class Log(Watcher):
    def __init__(self):
        self.started, self.ended, self.epochs = [], [], 0

    def run_started(self, name, epochs_done):
        self.started.append((name, epochs_done))

    def epoch_ended(self, name, epoch, validation_loss):
        self.epochs += 1

    def run_ended(self, name, result):
        self.ended.append((name, result))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    dataset = read_data(folder / "data")
    log = Log()
    return compare([dataset], make_tiny(), folder / "out", log), log


def test_the_results_are_tidy_and_complete(done):
    result, _ = done
    table = pd.read_csv((result.out / "results.csv"), keep_default_na=False, dtype={"case": str})
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 12 * len(METRICS)  # losses, cases (each tested once), metrics
    assert not table.duplicated(["dataset", "network", "loss", "fold", "seed", "case", "class", "metric"]).any()
    for _, part in table[table["metric"] == "DSC"].groupby("loss"):
        assert sorted(part["case"]) == sorted(case.id for case in result.experiments[0].dataset.cases)
    assert set(table["class"]) == {"lesion"} and set(table["fold"]) == {0, 1}


def test_the_summary_can_be_computed_again_from_the_results(done):
    result, _ = done
    again = summarise(read_table(result.out / "results.csv"))
    pd.testing.assert_frame_equal(again, summarise(result.cases))
    text = (result.out / "summary.md").read_text()
    row = again[(again["loss"] == "focal") & (again["metric"] == "IoU")].iloc[0]
    assert f"{row['mean']:.3f} ± {row['half_width']:.3f}" in text
    assert command(result) in text
    for part in ("12 cases", "prediction empty, truth not", "near-duplicates", "torch", "None."):
        assert part in text
    assert "| threads | 1 |" in text and "device cpu, threads 1." in text


def test_a_checkpoint_left_by_a_kill_after_the_end_goes_at_the_next_look(done):
    result, _ = done
    outcome = result.outcomes[0]
    left = outcome.folder / "last.ckpt"
    left.touch()
    assert run_cell(str(outcome.experiment.folder), outcome.run.name)["status"] == "finished"
    assert not left.exists()


def test_the_folds_are_written_and_split_everything(done):
    result, _ = done
    record = json.loads((result.out / "folds.json").read_text())
    tested = [case for fold in record["folds"] for case in fold["test"]]
    assert sorted(tested) == sorted(case.id for case in result.experiments[0].dataset.cases)
    for fold in record["folds"]:
        parts = [set(fold[name]) for name in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 12 and all(parts)


def test_a_finished_run_is_never_repeated(done):
    result, first = done
    assert [epochs for _, epochs in first.started] == [0] * 4 and first.epochs == 8
    before = {path: path.stat().st_mtime_ns for path in (result.out / "runs").rglob("*")}
    log = Log()
    again = compare([result.experiments[0].dataset], result.settings, result.out, log)
    assert log.started == [] and before == {path: path.stat().st_mtime_ns for path in before}
    pd.testing.assert_frame_equal(again.cases, result.cases)


@pytest.mark.slow
def test_other_settings_are_other_runs_and_do_not_mix(tmp_path):
    dataset, out = read_data(tmp_path / "data"), tmp_path / "out"
    compare([dataset], make_tiny("dice", epochs=1), out)
    result = compare([dataset], make_tiny("dice,tversky", epochs=1, learning_rate=0.02), out)
    assert len(list((out / "runs").iterdir())) == 6
    assert len(read_table(result.out / "results.csv")) == 2 * 12 * len(METRICS)
    # Adding a loss runs that loss alone.
    log = Log()
    compare([dataset], make_tiny("tversky,focal", epochs=1, learning_rate=0.02), out, log)
    assert [name for name, _ in log.started] == ["focal, fold 0", "focal, fold 1"]


@pytest.mark.parametrize("change", [{"split_seed": 1}, {"folds": 3}, {"validation": 0.4}])
def test_other_folds_in_the_same_folder_are_refused(done, change):
    result, _ = done
    before = (result.out / "folds.json").read_bytes()
    with pytest.raises(LabError, match="another --out"):
        compare([result.experiments[0].dataset], make_tiny(**change), result.out)
    assert (result.out / "folds.json").read_bytes() == before
    assert not (result.out / "lock.json").exists()


def test_other_data_in_the_same_folder_are_refused(tmp_path):
    dataset = read_data(tmp_path / "data")
    settings = make_tiny("dice", epochs=1)
    compare([dataset], settings, tmp_path / "out")
    path = dataset.cases[3].image
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(LabError, match="images, masks or classes"):
        compare([dataset], settings, tmp_path / "out")


class Interrupt(Log):
    """Presses Ctrl-C in the given epoch of the given run."""

    def __init__(self, run, epoch):
        super().__init__()
        self.at = (run, epoch)

    def epoch_ended(self, name, epoch, validation_loss):
        super().epoch_ended(name, epoch, validation_loss)
        if (len(self.started), epoch) == self.at:
            raise KeyboardInterrupt


def test_an_interrupted_comparison_goes_on_and_gives_the_same_table(done, tmp_path):
    result, _ = done
    with pytest.raises(KeyboardInterrupt):
        compare([result.experiments[0].dataset], result.settings, tmp_path, Interrupt(3, 1))
    assert not (tmp_path / "lock.json").exists() and not (tmp_path / "results.csv").exists()
    log = Log()
    compare([result.experiments[0].dataset], result.settings, tmp_path, log)
    assert log.started == [("dice, fold 1", 1), ("focal, fold 1", 0)] and log.epochs == 3
    assert (tmp_path / "results.csv").read_bytes() == (result.out / "results.csv").read_bytes()


def break_losses(monkeypatch, broken):
    """Let the loss named `broken` raise in training, not in the check before it."""
    build = LossChoice.build

    class Broken(torch.nn.Module):
        def forward(self, logits, labels):
            if logits.shape[-1] > 8:
                raise ValueError("the gradient went home\nsecond line")
            return logits.mean()

    monkeypatch.setattr(LossChoice, "build", lambda self, **a: Broken() if self.name == broken else build(self, **a))


def test_a_failed_run_is_recorded_the_rest_go_on_and_it_is_retried(tmp_path, monkeypatch):
    dataset, settings, out = read_data(tmp_path / "data"), make_tiny("dice,focal", epochs=1), tmp_path / "out"
    with monkeypatch.context() as patch:
        break_losses(patch, "dice")
        log = Log()
        result = compare([dataset], settings, out, log)
    assert [failure.run.loss.name for failure in result.failures] == ["dice", "dice"]
    assert [name for name, _ in log.ended] == ["dice, fold 0", "focal, fold 0", "dice, fold 1", "focal, fold 1"]
    record = json.loads((result.failures[0].folder / "failure.json").read_text())
    assert record["reason"] == "ValueError: the gradient went home" and "Traceback" in record["traceback"]
    assert set(result.cases["loss"]) == {"focal"}
    text = (result.out / "summary.md").read_text()
    assert "the gradient went home" in text and "| 0 of 2 |" in text
    assert (result.out / "contours.png").exists()

    log = Log()
    result = compare([dataset], settings, out, log)
    assert [name for name, _ in log.started] == ["dice, fold 0", "dice, fold 1"]
    assert not result.failures and not list(out.rglob("failure.json"))
    assert set(result.cases["loss"]) == {"dice", "focal"}


def test_a_full_disk_is_no_failure_of_a_run_but_ends_the_comparison(tmp_path, monkeypatch):
    def full(checkpoint, part):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data, settings, out = read_data(tmp_path / "data"), make_tiny("dice,focal", epochs=1), tmp_path / "out"
    monkeypatch.setattr(torch, "save", full)
    log = Log()
    with pytest.raises(LabError, match=r"No space left on device: .*\.ckpt could not be written; .* MB are free"):
        compare([data], settings, out, log)
    assert log.ended == [("dice, fold 0", "stopped, as no space is left")] and not list(out.rglob("failure.json"))


def test_a_comparison_in_which_all_fails_still_ends_with_a_summary(tmp_path, monkeypatch):
    break_losses(monkeypatch, "dice")
    result = compare([read_data(tmp_path / "data")], make_tiny("dice", epochs=1), tmp_path / "out")
    assert len(result.failures) == 2 and result.cases.empty
    assert "No run finished" in (result.out / "summary.md").read_text()


def test_out_of_memory_says_what_helps():
    assert "--batch-size" in explain(torch.OutOfMemoryError("CUDA out of memory"))
    assert "--batch-size" in explain(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert explain(ValueError()) == "ValueError"


@pytest.mark.parametrize("losses", ["dise", "dice:delta=0.2", "dice:reduction=none", "dice:activation=none"])
def test_impossible_losses_are_found_before_anything_starts(tmp_path, losses):
    settings = make_tiny(losses)
    with pytest.raises(LabError):
        compare([read_data(tmp_path / "data")], settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_loss_of_the_family_can_be_compared():
    import unifocal

    check_losses(LossChoice.parse_list(",".join(unifocal.available())), 2)


def test_near_duplicates_share_a_fold_and_are_reported(tmp_path):
    data = write_data(tmp_path / "data")
    for part in ("images", "masks"):
        (data / part / "99.png").write_bytes((data / part / "3.png").read_bytes())
    result = compare([read_dataset(data)], make_tiny("dice", epochs=1), tmp_path / "out")
    record = json.loads((tmp_path / "out/folds.json").read_text())
    for fold in record["folds"]:
        for part in ("train", "validation", "test"):
            assert ("3" in fold[part]) == ("99" in fold[part])
    assert "3 = 99" in (result.out / "summary.md").read_text()


# The picture


def pixels_of(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def centre(figure, ax, colour, tolerance=60):
    """Mean position of a colour within an axes, as shares of its width and height from the top left."""
    pixels = pixels_of(figure)
    box = ax.get_window_extent()
    height = pixels.shape[0]
    part = pixels[round(height - box.y1) : round(height - box.y0), round(box.x0) : round(box.x1)]
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero((np.abs(part - rgb) < tolerance).all(-1))
    assert len(rows), f"nothing is drawn in {colour}"
    return rows.mean() / part.shape[0], columns.mean() / part.shape[1]


def test_contours_lie_on_the_image_right_way_up():
    """A lesion at the top right, a prediction at the bottom left: each contour must be where its region is."""
    truth, prediction = np.zeros((2, 60, 90), np.uint8)
    truth[5:15, 70:85] = 1
    prediction[40:55, 10:20] = 1
    image = np.zeros((60, 90), np.float32)
    figure = pictures.draw_rows([("best", image, truth, {"dice": (prediction, "DSC 0.000")})], ["dice"])
    whole, enlarged = figure.axes
    row, column = centre(figure, whole, pictures.TRUTH)
    assert (row, column) == (pytest.approx(10 / 60, abs=0.03), pytest.approx(77.5 / 90, abs=0.03))
    row, column = centre(figure, enlarged, pictures.PREDICTION)
    assert row > 0.6 and column < 0.4
    # In data coordinates the contour passes half-way between the last pixel outside and the first inside.
    vertices = np.concatenate([path.vertices for path in whole.collections[0].get_paths()])
    assert vertices.min(0) == pytest.approx([69.5, 4.5]) and vertices.max(0) == pytest.approx([84.5, 14.5])
    # The image is shown with its first row on top.
    assert whole.get_ylim()[0] > whole.get_ylim()[1] and enlarged.get_ylim()[0] > enlarged.get_ylim()[1]


def test_the_window_holds_all_that_is_marked():
    truth, prediction = np.zeros((2, 100, 200), np.uint8)
    truth[0:10, 150:199] = 1
    prediction[20:30, 140:150] = 1
    top, bottom, left, right = pictures.window([truth, prediction])
    assert top == 0 and bottom >= 30 and left <= 140 and right >= 199
    assert 0 <= top < bottom <= 100 and 0 <= left < right <= 200


def test_best_median_and_worst_by_mean_over_losses_among_images_with_lesions():
    rows = [
        ("data", "unet", loss, 0, 0, case, "lesion", "DSC", value)
        for case, values in {"a": (0.9, 0.1), "b": (0.6, 0.6), "c": (0.2, 0.9), "none": (1.0, 1.0)}.items()
        for loss, value in zip(("dice", "focal"), values, strict=True)
    ]
    table = pd.DataFrame([*rows, ("data", "unet", "dice", 0, 0, "half", "lesion", "DSC", 1.0)], columns=list(COLUMNS))
    scores = pictures.case_scores(table)
    chosen = pictures.choose_cases(scores, {"a", "b", "c", "half"})
    assert chosen == [("best", "b"), ("median", "c"), ("worst", "a")]
    assert pictures.choose_cases(scores, {"a"}) == [("best", "a")]
    assert pictures.choose_cases(scores, set()) == []


def test_the_summary_marks_the_best(done):
    result, _ = done
    write_summary(result)
    means = summarise(result.cases).set_index(["metric", "loss"])["mean"]
    best = means["DSC"].idxmax()
    lines = (result.out / "summary.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"| {best} | **")]
    assert f"**{means['DSC', best]:.3f}" in line


def test_a_data_set_without_any_lesion_is_refused(tmp_path):
    folder = write_data(tmp_path / "data")
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    with pytest.raises(LabError, match="all 12 masks"):
        compare([read_dataset(folder)], make_tiny(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_of_a_protocol_keeps_what_was_changed_back_to_a_default(done):
    """The protocol has 100 epochs, `Settings` 20."""
    result, _ = done
    settings = settings_from({"protocol": "generalised-focal/bus2017", "epochs": "20", "losses": "dice"})
    text = command(replace(result, settings=settings))
    assert "--protocol generalised-focal/bus2017" in text and "--epochs 20" in text and "--size" not in text


@pytest.mark.slow
def test_a_picture_of_an_earlier_comparison_does_not_pass_for_this_one(tmp_path):
    dataset = read_data(tmp_path / "data")
    out = tmp_path / "out"
    compare([dataset], make_tiny("dice", epochs=1), out)
    assert (out / "contours.png").exists()
    failed = compare([dataset], make_tiny("dice", epochs=1, learning_rate=1e30), out)
    assert len(failed.failures) == 2
    assert not (out / "contours.png").exists()
    assert "contours.png" not in (out / "summary.md").read_text()


def test_a_damaged_prediction_costs_the_picture_and_no_table(tmp_path):
    class Told(Watcher):
        def stage(self, text: str) -> None:
            told.append(text)

    told: list[str] = []
    dataset, out = read_data(tmp_path / "data"), tmp_path / "out"
    compare([dataset], make_tiny("dice", epochs=1), out)
    for path in out.glob("runs/*/predictions/*.png"):
        path.write_bytes(b"cut")
    (out / "summary.md").unlink()
    compare([dataset], make_tiny("dice", epochs=1), out, Told())
    assert not (out / "contours.png").exists() and "contours.png" not in (out / "summary.md").read_text()
    assert [text for text in told if text.startswith("contours.png is left out: expected a readable image")]


def test_impossible_words_for_slurm_are_refused_before_anything_is_prepared(tmp_path):
    pytest.importorskip("submitit")
    settings = make_tiny("dice", engine="slurm", slurm="cluster=local,partion=x")
    with pytest.raises(LabError, match="Did you mean 'partition'"):
        compare([read_data(tmp_path / "data")], settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()

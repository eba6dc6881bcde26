"""The Dice coefficient of a validation pass, against the same number counted by hand and by the metrics."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_tiny, read_data

from unifocal.lab.comparison import compare
from unifocal.lab.data.cases import IGNORE
from unifocal.lab.grid.cells import read_history
from unifocal.lab.training.overlap import Overlap


def logits_for(prediction, classes):
    return torch.nn.functional.one_hot(torch.tensor(prediction), classes).movedim(-1, 1).float()


def test_voxels_of_all_batches_are_counted_together():
    overlap = Overlap()
    overlap.add(logits_for([[1, 1, 0, 0]], 3), torch.tensor([[1, 0, 0, 1]]))
    overlap.add(logits_for([[1, 2, 2, 0]], 3), torch.tensor([[1, 2, 0, 0]]))
    first, second = 2 * 2 / (3 + 3), 2 * 1 / (2 + 1)  # not the mean over batches: 1 / 2 and 1
    assert float(overlap.value) == pytest.approx((first + second) / 2)


def test_what_is_left_out_counts_for_nobody():
    overlap = Overlap()
    overlap.add(logits_for([[1, 1, 1, 0]], 2), torch.tensor([[1, IGNORE, 0, IGNORE]]))
    assert float(overlap.value) == pytest.approx(2 / 3)


def test_nothing_there_and_nothing_found_is_right_and_anything_found_wrong():
    overlap = Overlap()
    overlap.add(logits_for([[0, 0]], 2), torch.tensor([[0, 0]]))
    assert float(overlap.value) == 1
    overlap.add(logits_for([[0, 1]], 2), torch.tensor([[0, 0]]))
    assert float(overlap.value) == 0
    overlap.clear()
    overlap.add(logits_for([[1, 1]], 2), torch.tensor([[1, 1]]))
    assert float(overlap.value) == 1


def test_the_history_has_it_for_every_epoch_and_it_is_that_of_the_network(tmp_path):
    """One case to validate on, whole and as large as the network sees it: the same as its DSC after the last epoch."""
    settings = make_tiny("dice", epochs=3, keep="last", size=40, validation=0.05, learning_rate=0.05)
    data = read_data(tmp_path / "data")
    done = compare([data], settings, tmp_path / "out")
    for outcome in done.outcomes:
        history = pd.read_csv(outcome.folder / "history.csv")
        assert list(history["validation_dice"].between(0, 1)) == [True] * 3
        assert read_history(outcome.folder)[-1]["validation_dice"] == history["validation_dice"].iloc[-1]
        scores = pd.read_csv(outcome.folder / "validation.csv")
        scores = scores[scores["metric"] == "DSC"]["value"]
        if len(scores) == 1:
            # Scores are taken on the original grid, 40 x 48, the other on the one trained on, 40 x 40.
            assert np.isclose(history["validation_dice"].iloc[-1], scores.item(), atol=0.06)

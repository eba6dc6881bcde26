"""Every loss sees the same batches, a resumed run the rest of them, and nothing that is padded counts."""

import threading
import time

import numpy as np
import pytest
import torch
from in_memory import IGNORE, InMemory, random_labels
from scipy import stats

from unifocal.lab import sources
from unifocal.lab.batches import Batches
from unifocal.lab.data.cases import IGNORE as LABS_IGNORE
from unifocal.lab.errors import LabError
from unifocal.lab.settings import make_settings

CPU = torch.device("cpu")
PICTURES = InMemory(random_labels(*[(16, 12)] * 10))
RAGGED = InMemory(random_labels((9, 14, 8), (12, 10, 8), (9, 14, 8), (7, 7, 11), (12, 10, 8)), channels=2)


def make(data=PICTURES, epoch=3, indices=None, seed=(0, 0), divisor=None, **settings):
    indices = range(len(data)) if indices is None else indices
    return Batches(
        data,
        indices,
        make_settings(**{"batch_size": 4, **settings}),
        seed,
        None if epoch is None else lambda: epoch,
        CPU,
        divisor,
    )


def same(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        torch.equal(a, b) for pair in zip(left, right, strict=True) for a, b in zip(*pair, strict=True)
    )


def cases(batches):
    """The number of each image's case, which its values tell while it is not augmented."""
    return [int(image.flatten()[0]) for images, _ in batches for image in images]


def test_the_stand_in_ignores_what_the_lab_ignores():
    assert IGNORE == LABS_IGNORE


# The same for every loss, other for every epoch

WAYS = {
    "whole": {},
    "patches": {"data": RAGGED, "patch": "6,5,7", "patches_per_case": 2},
    "ragged": {"data": RAGGED, "divisor": (4, 4, 4)},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_depend_on_seed_fold_and_epoch_only(way):
    first = list(make(**way))
    torch.rand(5), np.random.default_rng().random()
    used = make(**way)
    list(used)
    assert same(first, used) and same(first, make(**way, losses="focal", networks="unet:width=8"))
    for other in ({"seed": (1, 0)}, {"seed": (0, 1)}, {"epoch": 4}):
        assert not same(first, make(**way, **other))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_resumed_run_sees_what_an_uninterrupted_one_would(way):
    straight = make(**way)
    epochs = iter(range(4))
    straight.epoch = lambda: next(epochs)
    seen = [list(straight) for _ in range(4)]
    for epoch in (2, 3):
        assert same(seen[epoch], make(**way, epoch=epoch))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_case_looks_alike_whatever_the_others_are(way):
    """Fewer cases, in another order and smaller batches: the same images, but for what is padded."""

    def looks(indices, batch_size):
        batches = make(**way, indices=indices, batch_size=batch_size)
        return {tuple(i[i != 0].tolist()) for images, _ in batches for i in images}

    many, few, alone = looks([0, 1, 2, 3, 4], 5), looks([3, 1], 2), looks([3, 1], 1)
    assert few == alone and few < many and len(many) == 5 * way.get("patches_per_case", 1)


def test_augmentation_does_not_move_patches():
    """Of the patches that nothing fires for, as many as chance has it are cut in the same places of the same order."""
    way = {"data": InMemory(random_labels(*[(12, 10)] * 40), 3), "patch": 5}
    plain, changed = (list(make(**way, augment=augment)) for augment in (False, True))
    alike = [
        torch.equal(a, b)
        for one, other in zip(plain, changed, strict=True)
        for a, b in zip(one[0], other[0], strict=True)
    ]
    low, high = stats.binom.interval(0.9999, 40, 0.5**2 * 0.85**4)
    assert max(low, 1) <= sum(alike) <= high


# Which cases, how often


def test_every_case_once_and_none_dropped():
    batches = make(indices=[7, 2, 4, 9, 1], batch_size=2, augment=False)
    seen = cases(batches)
    assert len(batches) == 3 and sorted(seen) == [1, 2, 4, 7, 9] and seen != [7, 2, 4, 9, 1]


def test_every_place_in_the_order_is_as_likely_for_each_case():
    first = np.bincount(
        [cases(make(epoch=epoch, augment=False, batch_size=10))[0] for epoch in range(600)], minlength=10
    )
    assert stats.chisquare(first).pvalue > 1e-4


def test_patches_per_case_are_different_patches():
    data = InMemory([np.arange(400).reshape(20, 20) % 251 for _ in range(3)])
    batches = make(data, patch=4, patches_per_case=5, augment=False, patch_foreground=0)
    assert len(batches) == 4 and sorted(cases(batches)) == sorted([0, 1, 2] * 5)
    patches = {tuple(i.flatten().tolist()) for images, _ in batches for i in images}
    assert len(patches) >= 14  # of 17 * 17 places


def test_steps_go_through_the_cases_again_with_other_patches():
    batches = make(indices=[5, 6, 7], steps=4, batch_size=4, augment=False)
    seen = cases(batches)
    assert len(batches) == 4 and len(seen) == 16
    assert seen[:3] == seen[3:6] == seen[12:15] and sorted(seen[:3]) == [5, 6, 7]
    data = InMemory([np.arange(400).reshape(20, 20) % 251 for _ in range(2)])
    images = torch.cat([i for i, _ in make(data, steps=5, batch_size=2, patch=4, augment=False, patch_foreground=0)])
    assert len({tuple(i.flatten().tolist()) for i in images}) >= 9
    few = make(steps=1, batch_size=4, augment=False)
    assert len(few) == 1 and len(cases(few)) == 4


def test_no_case_is_a_mistake():
    with pytest.raises(LabError, match="at least one case"):
        make(indices=[])


# Validation


def test_validation_batches_are_in_order_and_untouched():
    batches = make(epoch=None, indices=[3, 1], steps=9)
    (images, labels), = batches  # fmt: skip
    assert len(batches) == 1
    for i, case in enumerate([3, 1]):
        assert torch.equal(images[i], PICTURES[case].image) and torch.equal(labels[i], PICTURES[case].labels.long())


def test_validation_patches_are_the_same_in_every_epoch_and_as_often_on_foreground():
    labels = np.zeros((40, 40), np.uint8)
    labels[20, 20] = 1
    batches = make(InMemory([labels] * 20), epoch=None, patch=3, patches_per_case=30, patch_foreground=0.5)
    first = list(batches)
    assert same(first, batches)
    centred = sum(int(patch[1, 1] == 1) for _, patches in first for patch in patches)
    low, high = stats.binom.interval(0.9999, 600, 0.5 + 0.5 / 38**2)
    assert low <= centred <= high


# What comes out


def test_images_labels_and_layout():
    images, labels = next(iter(make(InMemory(random_labels((16, 12)), channels=3))))
    assert images.dtype == torch.float32 and images.shape == (1, 3, 16, 12)
    assert labels.dtype == torch.int64 and labels.shape == (1, 16, 12)
    assert images.is_contiguous(memory_format=torch.channels_last)
    images, _ = next(iter(make(RAGGED)))
    assert images.is_contiguous()


def test_what_is_padded_is_ignored():
    """Cases of different sizes, to the largest and to the divisor; the order of the batch stays."""
    order = [0, 3, 1, 2, 4]  # three sizes, mixed
    (images, labels), = make(RAGGED, epoch=None, indices=order, batch_size=5, divisor=(4, 8, 1))  # fmt: skip
    assert images.shape == (5, 2, 12, 16, 11)
    for i, case in enumerate(RAGGED.cases[number] for number in order):
        a, b, c = case.labels.shape
        assert torch.equal(images[i, :, :a, :b, :c], case.image)
        assert torch.equal(labels[i, :a, :b, :c], case.labels.long())
        assert (labels[i] == IGNORE).sum() == labels[i].numel() - case.labels.numel()
        assert images[i].sum() == pytest.approx(float(case.image.sum()), rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"patch": 10}], ids=["whole", "patches"])
def test_ignored_voxels_never_become_a_class(settings):
    """Truth is 1 everywhere, so whatever is another class but background came from a label that is none."""
    data = InMemory([np.where(np.indices(shape).sum(0) % 7 < 5, 1, IGNORE) for shape in [(9, 14, 8), (12, 10, 8)] * 8])
    values = set()
    for epoch in range(4):
        for images, labels in make(data, epoch=epoch, divisor=(8, 8, 8), **settings):
            values |= set(labels.unique().tolist())
            assert images.shape[2:] == labels.shape[1:] and not any(side % 8 for side in labels.shape[1:])
    # Background comes from outside of a whole image; a patch has no outside but what is ignored.
    assert values == ({0, 1, IGNORE} if not settings else {1, IGNORE})


def test_a_moved_patch_shows_what_lies_around_it():
    """In the middle of a case hardly anything comes from beyond the border, and that is ignored."""
    labels = np.zeros((40, 40), np.uint8)
    labels[20, 20] = 1
    data = InMemory([labels] * 40)
    way = {"patch": 16, "patch_foreground": 1, "batch_size": 40}
    patches = torch.cat([labels for epoch in range(5) for _, labels in make(data, epoch=epoch, **way)])
    assert set(patches.unique().tolist()) <= {0, 1, IGNORE} and patches.shape[1:] == (16, 16)
    assert (patches == IGNORE).float().mean() < 0.002  # 0.025 if patches were cut without a border
    assert (patches[:, 4:-4, 4:-4] == 1).any((1, 2)).float().mean() > 0.9  # zoomed out, a voxel may be lost


def test_a_patch_larger_than_the_case_begins_with_it():
    images, labels = next(iter(make(RAGGED, patch="16,16,6", augment=False, batch_size=1, indices=[3])))
    assert images.shape == (1, 2, 16, 16, 6)
    assert (labels[0, :7, :7] != IGNORE).all() and (labels != IGNORE).sum() == 7 * 7 * 6
    inner = RAGGED[3].labels.long()
    assert any(torch.equal(labels[0, :7, :7], inner[:, :, k : k + 6]) for k in range(6))


# Where images come from


def test_it_does_not_matter_whether_images_are_read_or_in_memory(monkeypatch):
    resident = make()
    assert isinstance(resident.source, sources.Resident)
    monkeypatch.setattr(sources, "room", lambda device: 10 * 16 * 12 * 5 - 1)
    read = make()
    assert isinstance(read.source, sources.Files) and same(resident, read)


def test_a_set_that_fits_is_read_once():
    data = InMemory(random_labels(*[(8, 8)] * 6))
    batches = make(data)
    list(batches)
    data.read.clear()
    list(batches)
    assert data.read == []


def test_memory_maps_serve_as_well(tmp_path):
    from in_memory import Case

    data = InMemory(random_labels(*[(9, 14, 8)] * 4))
    expected = list(make(data, patch=6))
    for i, case in enumerate(data.cases):
        np.save(tmp_path / f"{i}.image.npy", case.image.numpy())
        np.save(tmp_path / f"{i}.labels.npy", case.labels.numpy())
        files = (np.load(tmp_path / f"{i}.{name}.npy", mmap_mode="c") for name in ("image", "labels"))
        data.cases[i] = Case(*map(torch.from_numpy, files))
    assert same(expected, make(data, patch=6))


def test_the_next_batches_are_read_while_the_network_computes():
    data = InMemory(random_labels(*[(8, 8)] * 40))
    batches = iter(make(data, patch=4, batch_size=1, augment=False))
    next(batches)
    deadline = time.monotonic() + 10
    while len(data.read) < 1 + sources.AHEAD and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(data.read) == 1 + sources.AHEAD  # these, and no more than these
    batches.close()


def test_an_epoch_left_early_leaves_no_thread():
    before = threading.active_count()
    batches = iter(make(RAGGED, patch=4, batch_size=1))
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_what_goes_wrong_while_reading_is_told():
    class Broken(InMemory):
        def __getitem__(self, i):
            raise LabError("expected case 3; it is gone.")

    with pytest.raises(LabError, match="it is gone"):
        list(make(Broken(random_labels((8, 8))), patch=4))

"""Prepared once and kept: whole or made anew, never mixed with other settings or other files."""

import json
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from volume_files import save_volume

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError
from unifocal.lab.preparation import cache
from unifocal.lab.preparation.cache import open_prepared, prepare_all
from unifocal.lab.preparation.contents import data_fingerprint, file_digests
from unifocal.lab.preparation.foreground import PER_CLASS, sample_foreground
from unifocal.lab.preparation.steps import prepare_case
from unifocal.lab.settings import make_settings

SMALL = {"spacing": "2"}


@pytest.fixture
def dataset(tmp_path):
    """Four volumes of different shape with two classes, the last without foreground; plain layout."""
    rng = np.random.default_rng(0)
    for n in range(4):
        shape = (10 + n, 12, 8)
        labels = np.zeros(shape, np.uint8)
        if n < 3:
            labels[3:7, 4:9, 2:6] = 1
            labels[4:6, 5:7, 3:5] = 2
        save_volume(tmp_path / "data" / "images" / f"{n}.nii.gz", rng.normal(size=shape).astype(np.float32))
        save_volume(tmp_path / "data" / "masks" / f"{n}.nii.gz", labels)
    return read_dataset(tmp_path / "data")


@pytest.fixture
def count(monkeypatch):
    """The ids of the cases that were prepared, in order."""
    seen: list[str] = []

    def counted(case, *rest):
        seen.append(case.id)
        return prepare_case(case, *rest)

    monkeypatch.setattr(cache, "prepare_case", counted)
    return seen


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_is_what_was_prepared(dataset, tmp_path):
    settings = make_settings(**SMALL)
    prepared = prepare_all(dataset, settings, tmp_path / "prepared")
    assert len(prepared) == 4 and (prepared.dimension, prepared.channels) == (3, 1)
    for i, case in enumerate(dataset.cases):
        expected, placement = prepare_case(case, dataset, settings)
        assert torch.equal(prepared[i].image, expected.image) and torch.equal(prepared[i].labels, expected.labels)
        assert prepared[i].image.dtype == torch.float32 and prepared[i].labels.dtype == torch.uint8
        assert prepared.placement(i) == placement
        positions = prepared.foreground(i)
        assert positions.dtype == np.int64
        expected_positions = np.argwhere(expected.labels.numpy() > 0)
        assert sorted(map(tuple, positions)) == sorted(map(tuple, expected_positions))
    assert prepared.foreground(3).shape == (0, 3)


def test_nothing_is_made_twice(dataset, tmp_path, count):
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    first = prepare_all(dataset, settings, folder)
    before = {path: path.stat().st_mtime_ns for path in files(folder) if path.name != "contents.json"}
    again = prepare_all(dataset, settings, folder)
    assert count == ["0", "1", "2", "3"] and again.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_preparation_goes_on(dataset, tmp_path, count):
    def interrupted(items, what):
        assert what == "preparing cases"
        yield from items[:2]
        raise KeyboardInterrupt

    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    with pytest.raises(KeyboardInterrupt):
        prepare_all(dataset, settings, folder, interrupted)
    assert not list(folder.rglob("index.json"))
    prepare_all(dataset, settings, folder)
    assert count == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "changes",
    [{"spacing": "2,2,1"}, {"size": "5"}, {"clip": "-1,1"}, {"clip_percentiles": "1,99"}, {"intensity": "z-score"},
     {"crop": "4"}],
)  # fmt: skip
def test_other_settings_have_other_files(dataset, tmp_path, changes):
    """With both in one folder each is what it is alone."""
    first = prepare_all(dataset, make_settings(intensity="none"), tmp_path / "both")
    other = prepare_all(dataset, make_settings(**{"intensity": "none"} | changes), tmp_path / "both")
    alone = prepare_all(dataset, make_settings(**{"intensity": "none"} | changes), tmp_path / "alone")
    assert first.folder != other.folder and other.folder.name == alone.folder.name
    for i in range(4):
        assert torch.equal(other[i].image, alone[i].image) and torch.equal(other[i].labels, alone[i].labels)
        assert other[i].image.shape != first[i].image.shape or not torch.equal(other[i].image, first[i].image)


def test_settings_that_do_not_matter_share_files(dataset, tmp_path, count):
    folder = tmp_path / "prepared"
    first = prepare_all(dataset, make_settings(**SMALL), folder)
    second = prepare_all(dataset, make_settings(**SMALL, patch="8", epochs=3, losses="dice", seeds="4"), folder)
    assert first.folder == second.folder and len(count) == 4


def test_a_changed_file_changes_its_case_alone(dataset, tmp_path, count):
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    before = prepare_all(dataset, settings, folder)
    old = before[1].image.clone()
    fingerprint = data_fingerprint(dataset, file_digests(dataset, folder))
    path = dataset.cases[1].image
    save_volume(path, np.random.default_rng(9).normal(size=(11, 12, 8)).astype(np.float32))
    after = prepare_all(dataset, settings, folder)
    assert count == ["0", "1", "2", "3", "1"] and after.folder != before.folder
    assert not torch.equal(after[1].image, old) and torch.equal(before[1].image, old)
    assert torch.equal(after[0].image, before[0].image)
    assert data_fingerprint(dataset, file_digests(dataset, folder)) != fingerprint


@pytest.mark.parametrize("part", ["image.npy", "labels.npy", "foreground.npy", "json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_a_damaged_file_is_made_anew(dataset, tmp_path, count, part, damage):
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    expected = [case.image.clone() for case in (prepare_all(dataset, settings, folder)[i] for i in range(4))]
    (path,) = [path for path in files(folder) if path.name.startswith("1-") and path.name.endswith(part)]
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        content[-3] ^= 255  # within the last number, or the end of the record
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if damage == "empty" else len(content) // 2])
    prepared = prepare_all(dataset, settings, folder)
    assert count[4:] == ["1"]
    assert all(torch.equal(prepared[i].image, image) for i, image in enumerate(expected))
    np.testing.assert_array_equal(prepared.foreground(1), np.argwhere(prepared[1].labels.numpy() > 0)[
        np.argsort(prepared[1].labels.numpy()[prepared[1].labels.numpy() > 0], kind="stable")])  # fmt: skip


def test_a_damaged_memory_or_index_costs_nothing_but_time(dataset, tmp_path, count):
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    prepared = prepare_all(dataset, settings, folder)
    (folder / "contents.json").write_text("{")
    (prepared.folder / "index.json").write_text("[]")
    again = prepare_all(dataset, settings, folder)
    assert again.folder == prepared.folder and len(again) == 4 and len(count) == 4
    json.loads((folder / "contents.json").read_text())


def test_damage_while_training_is_told(dataset, tmp_path):
    prepared = prepare_all(dataset, make_settings(**SMALL), tmp_path / "prepared")
    (path,) = [path for path in files(tmp_path / "prepared") if path.name.startswith("2-") and "image" in path.name]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(LabError, match=r"2-\w+\.image\.npy is missing or damaged"):
        prepared[2]
    with pytest.raises(LabError, match=r"there is no index\.json"):
        open_prepared(tmp_path)


def test_a_full_disk_names_the_file_and_leaves_nothing_half(dataset, tmp_path, count):
    """A limit on the size of files stands in for the disk; every write beyond it fails."""
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(OSError) as caught:
            prepare_all(dataset, settings, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value.filename).endswith(".image.npy") and caught.value.errno
    assert not [path for path in files(folder) if path.suffix == ".npy" or ".part" in path.name]
    assert len(prepare_all(dataset, settings, folder)) == 4
    assert count == ["0", "0", "1", "2", "3"]


def test_every_case_that_is_broken_inside_is_told_after_looking_at_all(dataset, tmp_path, count):
    for n, value in ((0, np.nan), (2, np.inf)):
        values = np.zeros((10 + n, 12, 8), np.float32)
        values[1, 2, 3] = value
        save_volume(dataset.cases[n].image, values)
    scan = dataset.cases[3].image
    packed = bytearray(scan.read_bytes())
    packed[500:600] = b"\xff" * 100  # of neither the size nor the header
    scan.write_bytes(packed)
    with pytest.raises(LabError) as caught:
        prepare_all(dataset, make_settings(**SMALL, exclude="b"), tmp_path / "prepared")
    message = str(caught.value)
    assert count == ["0", "1", "2", "3"]
    assert f"{dataset.root} cannot be used as it is: 3 problems" in message
    for n in (0, 2):
        assert f"{n}: expected finite voxels; {dataset.cases[n].image} holds NaN or infinity" in message
    assert f"3: expected a readable volume; {scan} is damaged" in message
    assert message.endswith("leave the cases out: --exclude b,0,2,3")


def test_only_some_cases(dataset, tmp_path, count):
    settings, folder = make_settings(**SMALL), tmp_path / "prepared"
    part = prepare_all(dataset, settings, folder, only=[1, 3])
    assert count == ["1", "3"] and len(part) == 4
    assert part[3].labels.sum() == 0 and part.placement(1).original == (11, 12, 8)
    with pytest.raises(LabError, match="number 0 is none of those prepared"):
        part[0]
    whole = prepare_all(dataset, settings, folder)
    assert count == ["1", "3", "0", "2"] and whole.folder != part.folder


def test_a_set_travels_as_its_folder(dataset, tmp_path):
    prepared = prepare_all(dataset, make_settings(**SMALL), tmp_path / "prepared")
    stored = pickle.dumps(prepared)
    assert len(stored) < 500
    shutil.rmtree(tmp_path / "data")
    assert torch.equal(pickle.loads(stored)[0].image, prepared[0].image)
    tensor = prepared[0].image
    tensor += 1  # in memory alone
    assert not torch.equal(open_prepared(prepared.folder)[0].image, tensor)


def test_a_moved_folder_is_still_whole(dataset, tmp_path, count):
    settings = make_settings(**SMALL)
    prepared = prepare_all(dataset, settings, tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert prepare_all(dataset, settings, tmp_path / "there").folder.name == prepared.folder.name
    assert len(count) == 4


RACE = """
import sys
from pathlib import Path
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.preparation import prepare_all
from unifocal.lab.settings import make_settings
dataset, settings = read_dataset(sys.argv[1]), make_settings(spacing="2")
print("ready", flush=True)
sys.stdin.readline()
print(prepare_all(dataset, settings, Path(sys.argv[2])).folder.name)
"""


def test_two_processes_at_once(dataset, tmp_path):
    settings = make_settings(**SMALL)
    command = [sys.executable, "-c", RACE, str(dataset.root), str(tmp_path / "prepared")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout and other.stdin and other.stderr
        assert other.stdout.readline() == "ready\n", other.stderr.read()
        other.stdin.write("go\n")
        other.stdin.flush()
        prepared = prepare_all(dataset, settings, tmp_path / "prepared")
        out, error = other.communicate()
    assert other.returncode == 0, error
    assert out.strip() == prepared.folder.name and not list((tmp_path / "prepared").rglob("*.part"))
    for i, case in enumerate(dataset.cases):
        assert torch.equal(prepared[i].image, prepare_case(case, dataset, settings)[0].image)


def test_foreground_of_large_classes_is_an_even_sample():
    labels = np.zeros((60, 40, 30), np.uint8)
    labels[10:50] = 1
    labels[0, 0, :7] = 3
    labels[55:] = IGNORE
    positions = sample_foreground(labels)
    classes = labels[tuple(positions.T)]
    assert (classes == 1).sum() == PER_CLASS and (classes == 3).sum() == 7 and len(positions) == PER_CLASS + 7
    assert len({tuple(p) for p in positions}) == len(positions)
    # 48000 voxels between 10 and 49: the mean of 4000 is 29.5 within 5 standard errors of 11.5 / sqrt(4000)
    assert abs(positions[classes == 1][:, 0].mean() - 29.5) < 1
    np.testing.assert_array_equal(positions, sample_foreground(labels.copy()))


def test_pictures(tmp_path):
    folder = tmp_path / "pictures"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for n in range(2):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (30, 40, 3), np.uint8)).save(
            folder / f"images/{n}.png"
        )
        Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 255).save(folder / f"masks/{n}.png")
    dataset = read_dataset(folder)
    grey = prepare_all(dataset, make_settings(size="16"), tmp_path / "prepared")
    colour = prepare_all(dataset, make_settings(size="16", colour="true"), tmp_path / "prepared")
    assert (grey.channels, colour.channels, grey.dimension) == (1, 3, 2)
    assert grey[1].image.shape == (1, 16, 16) and colour[1].image.shape == (3, 16, 16)
    default = prepare_all(dataset, make_settings(), tmp_path / "prepared")
    patches = prepare_all(dataset, make_settings(patch="8"), tmp_path / "prepared")
    assert default[0].labels.shape == (128, 128) and patches[0].labels.shape == (30, 40)
    same = prepare_all(dataset, make_settings(size="128,128", patch="8"), tmp_path / "prepared")
    assert same.folder != patches.folder


def test_real_hippocampus_comes_back(shared, tmp_path):
    """On a finer grid the labels keep their place and shape; in their own grid every voxel."""
    from unifocal.lab.data.masks import read_mask
    from unifocal.lab.preparation.placement import to_original

    dataset = read_dataset(shared / "data" / "msd_hippocampus")
    for spacing, least in (("none", 1.0), ("0.7", 0.985), ("1.3", 0.85)):
        prepared = prepare_all(dataset, make_settings(spacing=spacing), tmp_path / "prepared", only=range(12))
        for i in range(12):
            one_hot = torch.nn.functional.one_hot(prepared[i].labels.long(), 3).movedim(-1, 0).float()
            back, truth = to_original(one_hot, prepared.placement(i)), read_mask(dataset.cases[i], dataset)
            for index in (1, 2):
                a, b = back == index, truth == index
                assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= least, (spacing, dataset.cases[i].id)

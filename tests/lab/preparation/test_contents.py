"""Hashes of files: by content alone, read once, read again when a file was touched."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from volume_files import block, noise, save_volume

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.errors import LabError
from unifocal.lab.preparation import contents as module
from unifocal.lab.preparation.contents import Contents, data_fingerprint, file_digests


def make_dataset(folder, cases, **fields):
    values: dict[str, Any] = {"classes": ("background", "lesion"), "values": {0: 0, 1: 1}, "dimension": 3} | fields
    return Dataset(folder.name, "plain", folder, tuple(cases), **values)


def write(folder, name="a"):
    image = save_volume(folder / f"{name}.nii.gz", noise())
    mask = save_volume(folder / f"{name}_mask.nii.gz", block())
    return Case("a", (image,), (mask,))


def age(*paths, seconds=60):
    for path in paths:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were read for their hash."""
    seen = []
    original = hashlib.file_digest

    def counted(file, name):
        seen.append(Path(file.name).name)
        return original(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return seen


def test_digests_are_sha256(tmp_path):
    case = write(tmp_path)
    found = file_digests(make_dataset(tmp_path, [case]), tmp_path / "prepared")
    assert found == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (*case.images, *case.masks)}


def test_files_are_read_once(tmp_path, hashed, monkeypatch):
    dataset = make_dataset(tmp_path, [write(tmp_path)])
    monkeypatch.setattr(module, "RECENT", -1.0)  # these files are old
    first = file_digests(dataset, tmp_path / "prepared")
    assert file_digests(dataset, tmp_path / "prepared") == first and len(hashed) == 2
    path = dataset.cases[0].image
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # as long as before
    assert file_digests(dataset, tmp_path / "prepared") != first
    assert hashed[2:] == ["a.nii.gz"]


def test_a_change_that_keeps_size_and_time_of_a_file_is_seen(tmp_path):
    """As a copy with its times preserved would: the time of the change of the file itself tells."""
    dataset = make_dataset(tmp_path, [write(tmp_path)])
    path = dataset.cases[0].image
    age(path)
    with Contents(tmp_path) as contents:
        contents.digest(path, own=True)
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Contents(tmp_path).digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, hashed):
    dataset = make_dataset(tmp_path, [write(tmp_path)])
    file_digests(dataset, tmp_path / "prepared")
    file_digests(dataset, tmp_path / "prepared")
    assert len(hashed) == 4 and not (tmp_path / "prepared").exists()


def test_the_fingerprint_is_that_of_the_data(tmp_path):
    """Other names and places are the same data; another class, meaning, id, role or sequence is not."""
    case = write(tmp_path / "one")
    dataset = make_dataset(tmp_path, [case])

    def fingerprint(data):
        return data_fingerprint(data, file_digests(data, tmp_path / "prepared"))

    moved = make_dataset(tmp_path / "two", [write(tmp_path / "two", "b")])
    assert fingerprint(moved) == fingerprint(dataset)
    others = [
        replace(dataset, classes=("background", "tumour")),
        replace(dataset, values={0: 0, 1: 1, 2: 1}),
        replace(dataset, cases=(replace(case, id="b"),)),
        replace(dataset, cases=(replace(case, images=case.masks, masks=case.images),)),
        replace(dataset, cases=(replace(case, images=(*case.images, *case.images)),)),
        replace(dataset, sequences=("t1",)),
        replace(dataset, channels=(1,)),
    ]
    assert len({fingerprint(data) for data in (dataset, *others)}) == 1 + len(others)


def test_a_detached_header_counts_with_its_voxels(tmp_path):
    pytest.importorskip("SimpleITK")
    image = save_volume(tmp_path / "a.mhd", np.zeros((3, 4, 5), np.int16))
    case = Case("a", (image,), ())
    dataset = make_dataset(tmp_path, [case])
    before = file_digests(dataset, tmp_path / "prepared")
    raw = next(path for path in tmp_path.iterdir() if path.suffix in (".raw", ".zraw"))
    content = bytearray(raw.read_bytes())
    content[0] ^= 1
    raw.write_bytes(content)
    assert file_digests(dataset, tmp_path / "prepared") != before
    raw.unlink()
    with pytest.raises(LabError, match="the files of case 'a'"):
        file_digests(dataset, tmp_path / "prepared")

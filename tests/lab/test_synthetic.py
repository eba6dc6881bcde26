"""The demonstration set: the same bytes for the same seed, the imbalance it promises, and no folder harmed."""

import hashlib

import numpy as np
import pytest

from unifocal.lab.data.duplicates import find_near_duplicates
from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError
from unifocal.lab.synthetic import draw_case, write_synthetic


def fingerprints(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return read_dataset(write_synthetic(tmp_path_factory.mktemp("demo") / "set"))


def test_it_is_a_plain_data_set_with_patients(demo):
    assert (demo.layout, len(demo.cases)) == ("plain", 60)
    assert demo.classes == ("background", "lesion")
    groups = [case.group for case in demo.cases]
    assert len(set(groups)) == 50
    assert groups[0] == groups[1] != groups[2]
    assert None not in groups
    assert read_image(demo.cases[0]).shape == read_mask(demo.cases[0], demo).shape == (128, 128)


def test_it_is_as_imbalanced_as_it_says(demo):
    percent = np.array([100 * read_mask(case, demo).mean() for case in demo.cases])
    assert 4 < percent.mean() < 6
    assert 2 <= (percent == 0).sum() <= 6
    assert ((percent > 0) & (percent < 0.5)).sum() >= 2
    assert ((percent > 0) & (percent < 1)).sum() >= 6
    assert percent.max() > 15


def test_lesions_are_darker_than_what_is_around_but_not_alone_dark(demo):
    """Lesions can be told by eye, and a threshold on the grey value cannot find them."""
    from scipy import ndimage

    darker, overlap = [], []
    for case in demo.cases:
        image, mask = read_image(case), read_mask(case, demo).astype(bool)
        if mask.mean() < 0.005:
            continue
        around = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=2)
        darker.append(np.median(image[around]) - np.median(image[mask]))
        smooth = ndimage.gaussian_filter(image, 2)
        found = smooth < np.quantile(smooth, mask.mean())
        overlap.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
    assert np.mean(np.array(darker) > 10) > 0.8
    assert np.mean(overlap) < 0.5


def test_speckle_is_multiplicative(demo):
    """Bright tissue is far from uniform, unlike a drawing with a little added noise."""
    middle = [read_image(case)[40:70] for case in demo.cases]
    assert np.median([(rows - rows.mean()).std() / rows.mean() for rows in middle]) > 0.15


def test_no_two_cases_are_alike(demo):
    assert find_near_duplicates(read_image(case) for case in demo.cases).pairs == []


def test_bytes_follow_from_the_arguments(tmp_path):
    first = fingerprints(write_synthetic(tmp_path / "a", cases=4, seed=5, size=64))
    assert fingerprints(write_synthetic(tmp_path / "b", cases=4, seed=5, size=64)) == first
    other = fingerprints(write_synthetic(tmp_path / "c", cases=4, seed=6, size=64))
    assert all(other[name] != first[name] for name in first if name.startswith("images/"))
    # A case does not depend on how many there are.
    more = fingerprints(write_synthetic(tmp_path / "d", cases=7, seed=5, size=64))
    assert all(more[name] == first[name] for name in first if name.startswith(("images/", "masks/")))


def test_the_global_random_state_plays_no_part():
    np.random.seed(0)  # noqa: NPY002
    image, mask = draw_case(3, seed=1, size=64)
    np.random.seed(9)  # noqa: NPY002
    again = draw_case(3, seed=1, size=64)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(mask, again[1])


def test_its_own_folder_is_replaced_and_no_other(tmp_path):
    own = write_synthetic(tmp_path / "own", cases=3, size=32)
    assert len(read_dataset(write_synthetic(own, cases=2, size=32)).cases) == 2
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(LabError, match="not made here"):
        write_synthetic(theirs, cases=1, size=32)
    assert [path.name for path in theirs.iterdir()] == ["thesis.txt"]
    with pytest.raises(LabError, match="is a file"):
        write_synthetic(theirs / "thesis.txt", cases=1, size=32)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert len(read_dataset(write_synthetic(empty, cases=1, size=32)).cases) == 1


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"size": 16}, {"seed": -1}])
def test_wrong_arguments(tmp_path, wrong):
    with pytest.raises(LabError, match="; got .*{}={}".format(*next(iter(wrong.items())))):
        write_synthetic(tmp_path / "x", **wrong)
    assert not (tmp_path / "x").exists()

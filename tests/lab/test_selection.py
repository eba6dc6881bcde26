"""A part of a data set: cases, images and classes, with all that hangs on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from volume_files import block, save_volume

from unifocal.lab.data.cases import IGNORE, Case, Dataset, Facts, OfficialFold
from unifocal.lab.data.masks import count_classes, read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.data.selection import exclude, select
from unifocal.lab.errors import LabError
from unifocal.lab.settings import make_settings

SEQUENCES = ("t1", "t1ce", "t2", "flair")
CLASSES = ("background", "necrotic core", "oedema", "enhancing tumour")


def make_dataset(files=4, **fields):
    """Three BraTS-like cases: all classes, no enhancing tumour, nothing; as files of one sequence each or as one."""
    counts = [(90, 4, 3, 2), (96, 2, 2, 0), (100, 0, 0, 0)]
    cases = tuple(
        Case(f"case {n}", tuple(Path(f"{n}_{m}.nii.gz") for m in range(files)), (Path(f"{n}_seg.nii.gz"),))
        for n in range(3)
    )
    values = {
        "values": {0: 0, 1: 1, 2: 2, 4: 3, 9: IGNORE},
        "dimension": 3,
        "sequences": SEQUENCES,
        "regions": {"whole tumour": (1, 2, 3), "tumour core": (1, 3)},
        "splits": (OfficialFold(("case 0", "case 1"), ("case 2",)),),
        "facts": tuple(Facts((10, 10, 1), voxels, ignored=1) for voxels in counts),
        "notes": ("a note.",),
    }
    return Dataset("brats", "brats20", Path("/data"), cases, CLASSES, **(values | fields))  # type: ignore[arg-type]


def chosen(dataset, **settings):
    return select(dataset, make_settings(**settings))


def test_nothing_asked_is_nothing_changed():
    dataset = make_dataset()
    assert chosen(dataset) is dataset
    assert chosen(dataset, sequences="flair,t2,t1,t1ce") is dataset


def test_excluded_cases_take_their_facts_and_places_along():
    found = chosen(make_dataset(), exclude="case 1")
    assert [case.id for case in found.cases] == ["case 0", "case 2"]
    assert [fact.voxels[0] for fact in found.facts] == [90, 100]
    assert found.splits == (OfficialFold(("case 0",), ("case 2",)),)
    assert found.notes == ("a note.", "left out by request: case 1.") and found.excluded == ("case 1",)


def test_cases_can_be_excluded_before_the_check_and_named_again_after():
    listed = exclude(make_dataset(facts=()), ["case 1"])
    assert len(listed.cases) == 2 and listed.facts == ()
    assert chosen(listed, exclude="case 1") is listed


def test_sequences_that_are_files():
    found = chosen(make_dataset(), sequences="t2, t1ce")
    assert found.sequences == ("t1ce", "t2")
    assert [path.name for path in found.cases[2].images] == ["2_1.nii.gz", "2_2.nii.gz"]


def test_sequences_that_are_channels_of_one_file():
    found = chosen(make_dataset(files=1), sequences="flair")
    assert found.sequences == ("flair",) and found.channels == (3,)
    assert [path.name for path in found.cases[0].images] == ["0_0.nii.gz"]
    twice = chosen(chosen(make_dataset(files=1), sequences="t1ce,t2,flair"), sequences="t1ce,flair")
    assert twice.channels == (1, 3)


def test_the_first_sequence_is_needed_where_only_it_fits_the_masks():
    dataset = make_dataset(aligned=False)
    assert chosen(dataset, sequences="t1,t2").sequences == ("t1", "t2")
    with pytest.raises(LabError, match="expected t1 among them, which has the grid of the masks"):
        chosen(dataset, sequences="t2")


@pytest.mark.parametrize(
    ("target", "name", "values", "voxels"),
    [
        ("enhancing tumour", "enhancing tumour", {0: 0, 1: 0, 2: 0, 4: 1, 9: IGNORE}, [(97, 2), (100, 0), (100, 0)]),
        ("tumour core", "tumour core", {0: 0, 1: 1, 2: 0, 4: 1, 9: IGNORE}, [(93, 6), (98, 2), (100, 0)]),
        ("oedema,necrotic core", "oedema + necrotic core", {0: 0, 1: 1, 2: 1, 4: 0, 9: IGNORE},
         [(92, 7), (96, 4), (100, 0)]),
        ("oedema,tumour core", "oedema + tumour core", {0: 0, 1: 1, 2: 1, 4: 1, 9: IGNORE},
         [(90, 9), (96, 4), (100, 0)]),
    ],
)  # fmt: skip
def test_one_class_against_all_else(target, name, values, voxels):
    found = chosen(make_dataset(), target=target)
    assert found.classes == ("background", name) and found.values == values and found.regions == {}
    assert [fact.voxels for fact in found.facts] == voxels and all(fact.ignored == 1 for fact in found.facts)


def test_cases_without_the_target_are_left_out():
    found = chosen(make_dataset(), require_target="true")
    assert [case.id for case in found.cases] == ["case 0", "case 1"]
    found = chosen(make_dataset(), target="enhancing tumour", require_target="true")
    assert [case.id for case in found.cases] == ["case 0"] and len(found.facts) == 1
    assert found.notes[-1] == "2 of 3 cases show no enhancing tumour and were left out."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": "case 1,cose 2"}, r"no case 'cose 2'\. Did you mean 'case 2'"),
        ({"exclude": "case 0,case 1,case 2"}, "expected cases to remain"),
        ({"sequences": "t1c"}, r"expected some of t1, t1ce, t2, flair; got 't1c'\. Did you mean 't1ce'"),
        ({"target": "oedma"}, r"got 'oedma'\. Did you mean 'oedema'"),
        ({"target": "background"}, "expected some of necrotic core, .*whole tumour, tumour core; got 'background'"),
        ({"exclude": "case 0,case 1", "require_target": "true"}, "brats has none"),
    ],
)
def test_mistakes_are_told_with_the_nearest_name(settings, message):
    with pytest.raises(LabError, match=message):
        chosen(make_dataset(), **settings)


def test_the_target_in_the_masks_is_that_of_the_facts(tmp_path):
    """Real files, two masks that overlap: the target is seen where either marks it."""
    one = block((8, 8, 8), 2, at=(slice(1, 5), slice(1, 5), slice(1, 5)))
    other = block((8, 8, 8), 1, at=(slice(3, 7), slice(1, 5), slice(1, 5)))
    save_volume(tmp_path / "images" / "a.nii.gz", np.zeros((8, 8, 8), np.int16))
    save_volume(tmp_path / "masks" / "a_mask.nii.gz", one)
    save_volume(tmp_path / "masks" / "a_mask_1.nii.gz", other)
    dataset = read_dataset(tmp_path)
    for target, truth in (("class 1", other == 1), ("class 2", one == 2)):
        found = chosen(dataset, target=target)
        mask = read_mask(found.cases[0], found)
        np.testing.assert_array_equal(mask, truth)
        assert found.facts[0].voxels == count_classes(mask, 2)[0] == (512 - 64, 64)


def test_grey_masks_of_one_lesion(tmp_path):
    for part, value in (("images", 9), ("masks", 255)):
        (tmp_path / part).mkdir()
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / part / "a.png")
    dataset = read_dataset(tmp_path)
    found = chosen(dataset, target="lesion")
    assert found.values is None and found.classes == dataset.classes and found.facts == dataset.facts


def test_real_tumours(shared):
    """The Decathlon's channels are FLAIR, T1w, t1gd, T2w, its label 3 the enhancing tumour; as the papers use BraTS."""
    dataset = read_dataset(shared / "data" / "msd_brain_tumour_crop")
    found = chosen(dataset, sequences="t1gd", target=dataset.classes[3], require_target="true")
    assert found.channels == (2,) and found.classes == ("background", dataset.classes[3])
    mask = read_mask(found.cases[0], found)
    np.testing.assert_array_equal(mask, read_mask(dataset.cases[0], dataset) == 3)
    assert found.facts[0].voxels == count_classes(mask, 2)[0]
    assert replace(found, cases=dataset.cases) == found

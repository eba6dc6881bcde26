"""Pictures: contours at the border of the mask, the right cases, slices and surfaces the right way round."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from folders import lesion, there, write_folder
from PIL import Image

from unifocal.lab.pictures import View
from unifocal.lab.progress import silent
from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.parts import Gallery, Text, every
from unifocal.lab.report.pictures import choice
from unifocal.lab.report.pictures.choice import Shown, choose
from unifocal.lab.report.pictures.gallery import _legend, _views, pictures
from unifocal.lab.report.pictures.surfaces import SIDE, bounding_box, surface
from unifocal.lab.report.pictures.tiles import cut, outline, tiles
from unifocal.lab.report.reading import read_study


def points(path):
    return [
        np.array([[float(x) for x in p.split()] for p in part.split("L")]) for part in re.findall(r"M([^Z]+)Z", path)
    ]


def drawn(svg):
    return "".join(re.findall(r' d="([^"]*)"', svg))


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_an_outline_runs_along_the_edges_of_the_pixels():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    [polygon] = points(outline(mask))
    assert polygon.min(0) == pytest.approx([3, 2]) and polygon.max(0) == pytest.approx([9, 5])  # x, y
    assert area(polygon) == pytest.approx(18 - 4 * 0.5 * 0.5 / 2)  # the corners are cut
    assert len(polygon) == 8  # no points on straight lines
    assert outline(np.zeros((3, 3), bool)) == ""


def test_a_region_at_the_border_is_closed_and_a_hole_is_one():
    whole = np.ones((4, 4), bool)
    [polygon] = points(outline(whole))
    assert polygon.min() == 0 and polygon.max() == 4
    whole[1:3, 1:3] = False
    assert len(points(outline(whole))) == 2


def test_the_cases_by_mean_and_by_disagreement(tmp_path, monkeypatch):
    out = write_folder(tmp_path, "dice,focal", cases=5)
    study = read_study(out)
    [experiment] = study.experiments.values()
    scores = {
        "case 0": (0.9, 0.9),
        "case 1": (0.1, 0.1),
        "case 2": (0.5, 0.5),
        "case 3": (0.95, 0.15),
        "case 4": (0.6, 0.5),
    }
    table = pd.DataFrame.from_dict(scores, orient="index", columns=["dice", "focal"])
    monkeypatch.setattr(choice, "scores_of", lambda *_: table)
    # Means .9 .1 .5 .55 .55: best 0, worst 1, the median of five is the third from the top.
    chosen = {case: why for why, case in choose(study, experiment, "unet")}
    assert chosen["case 0"] == "best" and chosen["case 1"] == "worst"
    assert chosen["case 3"].endswith("most disagreed")
    assert len(chosen) in (3, 4) and "median" in " ".join(chosen.values())
    table.loc[:] = 0.5  # nobody disagrees
    assert not any("disagreed" in why for why, _ in choose(study, experiment, "unet"))


def test_truth_and_predictions_are_drawn_where_they_are(folder_of):
    study = read_study(folder_of("plain"))
    section = pictures(study, analyse(study, "DSC"), silent)
    galleries = list(every(Gallery, [section]))
    assert len(galleries) in (3, 4)
    for gallery in galleries:
        number = int(gallery.caption.rpartition(" ")[2])
        truth, *predictions = points(drawn(gallery.defs))
        assert np.floor(truth.min(0)).astype(int).tolist() == [4 + number % 7, 3 + number % 5]
        assert [tile.title for tile in gallery.tiles] == ["whole image", "dice", "tversky", "focal"]
        for loss, (tile, predicted) in enumerate(zip(gallery.tiles[1:], predictions, strict=True)):
            assert f'-prediction{loss}"' in tile.svg and f'-prediction{loss}"' in gallery.tiles[0].svg
            expected = np.argwhere(lesion(number, shift=1 + loss))
            assert predicted.min(0)[::-1] == pytest.approx(expected.min(0))
            assert predicted.max(0)[::-1] == pytest.approx(expected.max(0) + 1)
            assert re.fullmatch(r"DSC [01]\.\d{3}(, \d+ % outside)?", tile.note)
        image = Image.open(io.BytesIO(base64.b64decode(there(re.search(r"base64,([^\"]+)", gallery.defs))[1])))
        assert image.size == (32, 32)
        bright = np.asarray(image).astype(float)
        inside = lesion(number) > 0
        assert bright[inside].mean() > bright[~inside].mean() + 50


def test_of_several_seeds_one_is_drawn_with_its_own_dsc(tmp_path):
    score = lambda loss, seed, case: 0.5 + 0.1 * seed + 0.01 * case  # noqa: E731
    out = write_folder(tmp_path, "dice,focal", score, cases=6, folds=2, seeds=(3, 4), with_images=True)
    failed = out / "runs" / "unet-1-fold0-seed3"
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text('{"reason": "it broke"}')
    study = read_study(out)
    section = there(pictures(study, analyse(study, "DSC"), silent))
    for gallery in every(Gallery, [section]):
        number = int(gallery.caption.rpartition(" ")[2])
        seeds = 3, 3 if number % 2 else 4
        found = [tile.note.partition(" outside")[0] for tile in gallery.tiles[1:]]
        for text, seed in zip(found, seeds, strict=True):
            assert text.startswith(f"DSC {score(0, seed, number):.3f}, seed {seed}")
    assert "a line and its DSC are of one seed" in next(every(Text, [section])).text


def test_the_legend_explains_what_stands_below_the_tiles(tmp_path):
    out = write_folder(tmp_path, "dice,focal", cases=5)
    [experiment] = read_study(out).experiments.values()
    words = _legend(experiment, 2, 2, 1)
    assert "those that show no lesion are left out of best, median and worst" in words
    assert "“5 % outside” below a tile: 5 % of that prediction lie outside its frame" in words
    assert "“nothing here”: it marks nothing in this picture" in words and "The DSC below a tile" not in words
    classes = replace(experiment.dataset, classes=("background", "kidney", "tumour"))
    words = _legend(replace(experiment, dataset=classes), 2, 2, 1)
    assert "no kidney or tumour are left out" in words and "The DSC below a tile is the mean over the classes." in words


def test_images_that_are_gone_are_told_of(tmp_path):
    study = read_study(write_folder(tmp_path, cases=6))
    section = pictures(study, analyse(study, "DSC"), silent)
    [text] = there(section).parts
    assert isinstance(text, Text) and text.text.startswith(
        "No pictures: the images, masks or predictions are not where"
    )


def volume():
    """A block low in the third axis; a prediction of it that errs high up."""
    truth, prediction = np.zeros((2, 20, 24, 30), np.uint8)
    truth[4:12, 5:10, 6:9] = 1
    prediction[4:12, 5:10, 6:9] = 1
    prediction[2:18, 2:20, 25] = 1
    image = np.random.default_rng(0).random(truth.shape).astype(np.float32)
    return Shown("v", "best", image, truth, {"dice": prediction}, {"dice": 0.5}, (1.0, 1.0, 2.0))


def test_the_telling_slices_of_a_volume():
    views = _views(volume())
    assert [(view.axis, view.index, what) for view, what in views] == [
        (2, 6, "most foreground"),
        (2, 25, "most errors"),
    ]


def test_a_slice_lies_as_scans_are_shown():
    part = cut(volume(), View(2, 7))
    # First axis to the right, second upwards.
    rows, columns = np.nonzero(part.truth)
    assert (columns.min(), columns.max()) == (4, 11) and (rows.min(), rows.max()) == (24 - 10, 24 - 6)
    gallery = tiles(part, "n", "c", 1, [("dice", "dice"), ("focal", "focal")], volume().note)
    assert [tile.note for tile in gallery.tiles] == ["truth filled, all predictions", "DSC 0.500", "no prediction"]


def test_flat_voxels_are_stretched():
    shown = volume()
    part = cut(Shown(**{**shown.__dict__, "spacing": (3.0, 1.0, 4.0)}), View(2, 7))
    assert part.truth.shape == (24, 60)


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(int)


def test_a_surface_has_the_shape_of_its_shadow():
    z, y, x = np.indices((40, 40, 40)) - 19.5
    ball = (z**2 + y**2 + x**2 <= 15**2).astype(np.uint8)
    seen = pixels(surface(ball, there(bounding_box([ball])), (1.0, 1.0, 1.0), ["#e69f00"]))
    shadow = seen[..., 3] > 0
    rows, columns = np.nonzero(shadow)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height == pytest.approx(width, abs=3) and shadow.sum() == pytest.approx(np.pi / 4 * height * width, rel=0.04)
    assert rows.mean() == pytest.approx((SIDE - 1) / 2, abs=1) and columns.mean() == pytest.approx(
        (SIDE - 1) / 2, abs=1
    )
    bright = seen[..., :3].sum(-1)
    middle = SIDE // 2
    # Light from the upper left.
    assert bright[middle - 20, middle - 20] > bright[middle, middle] > bright[middle + 20, middle + 20]


def test_up_is_up_and_the_nearer_hides_the_farther():
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[10:20, 10:20, 22:28] = 1  # high
    mask[10:20, 10:20, 2:8] = 2  # low
    seen = pixels(surface(mask, there(bounding_box([mask])), (1.0, 1.0, 1.0), ["#ff0000", "#0000ff"]))
    red, blue = ((seen[..., n] > 60) & (seen[..., 3] > 0) for n in (0, 2))
    assert np.nonzero(red)[0].mean() < np.nonzero(blue)[0].mean() - 20
    mask[:] = 0
    mask[5:25, 5:15, 5:25] = 1
    mask[5:25, 15:25, 5:25] = 2
    seen = pixels(surface(mask, there(bounding_box([mask])), (1.0, 1.0, 1.0), ["#ff0000", "#0000ff"]))
    red, blue = ((seen[..., n] > 60) & (seen[..., 3] > 0) for n in (0, 2))
    assert red.sum() > 1.5 * blue.sum()  # the second axis leads away from who looks
    mask[mask > 0] = 1
    mask[10:20, 10:20, 10:20] = 2
    seen = pixels(surface(mask, there(bounding_box([mask])), (1.0, 1.0, 1.0), ["#ff0000", "#0000ff"]))
    assert not seen[..., 2].any()  # what is inside is not seen


def test_nothing_marked_has_no_box():
    assert bounding_box([np.zeros((3, 3, 3), np.uint8)]) is None

"""The figures: nothing hides anything, the lines are the numbers, and the picture of the family cannot lie."""

import gc
import re
import weakref
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from unifocal import identities
from unifocal.lab.errors import LabError
from unifocal.lab.plots import family
from unifocal.lab.plots.curves import COLOURS, DASHES, GRADIENT, LOSS, QUANTITIES, draw_curves
from unifocal.lab.plots.family import draw_family, told, verify
from unifocal.lab.plots.places import PLACES, WAYS
from unifocal.lab.plots.probing import P_T, gradients_of, losses_of
from unifocal.lab.plots.rows import CURVES, make_rows
from unifocal.lab.plots.writing import COLUMN, write_plot

EIGHT = "cross-entropy,focal,dice,tversky,focal-tversky,combo,asymmetric-focal-tversky,symmetric-unified-focal"


def boxes_of(texts, figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return {text: text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()}


def overlap(one, other):
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 0.5 and high > 0.5  # pixels


def all_texts(figure):
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text().strip()]


@pytest.mark.parametrize(
    ("quantity", "losses", "gamma", "delta"),
    [
        ("curves", EIGHT, None, None),
        ("gradient", EIGHT, None, None),
        ("curves", None, "0,0.2,0.5,0.8", None),
        ("gradient", "unified-focal,symmetric-unified-focal", "0.1,0.5", "0.4,0.6,0.8"),
    ],
)
def test_no_text_hides_another_or_leaves_the_figure(quantity, losses, gamma, delta):
    figure = draw_curves(make_rows(losses, gamma, delta), QUANTITIES[quantity], 0.5).figure
    boxes = boxes_of(all_texts(figure), figure)
    assert figure.get_figwidth() == COLUMN and len(boxes) > 10
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (a, one), (b, other) in combinations(boxes.items(), 2):
        assert not overlap(one, other), (a, b)


@pytest.mark.parametrize(("quantity", "measure"), [(LOSS, losses_of), (GRADIENT, gradients_of)])
def test_a_line_is_the_loss_in_its_panel(quantity, measure):
    rows = make_rows(None, "0.1,0.7", "0.3,0.8")
    figure = draw_curves(rows, quantity, 0.2).figure
    assert len(figure.axes) == 4
    for row, panels in zip(rows, (figure.axes[:2], figure.axes[2:]), strict=True):
        for side, axes in enumerate(panels):
            assert len(axes.lines) == len(row.curves)
            for line, choice in zip(axes.lines, row.curves.values(), strict=True):
                np.testing.assert_array_equal(line.get_xdata(), P_T)
                np.testing.assert_array_equal(line.get_ydata(), measure(choice, 0.2)[side])
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    assert drawn == list(rows[0].curves)


def test_the_lines_of_a_panel_differ_by_colour_and_by_dashes():
    assert len(set(COLOURS)) == len(set(DASHES)) == len(COLOURS) == CURVES
    for losses, gamma in ((EIGHT, None), ("focal", "0,1,2,3,4,5,6,7")):
        axes = draw_curves(make_rows(losses, gamma, None), LOSS, 0.5).figure.axes[0]
        assert len({str(line.get_color()) for line in axes.lines}) == CURVES
        assert len({str(line._dash_pattern) for line in axes.lines}) == CURVES  # type: ignore[attr-defined]


def test_the_caption_tells_which_curves_are_one():
    rows = make_rows("tversky", None, "0.3,0.7")
    assert "One curve: tversky: δ = 0.3 = δ = 0.7." in draw_curves(rows, LOSS, 0.5).caption
    assert "One curve" not in draw_curves(rows, LOSS, 0.1).caption
    rows = make_rows("dice,tversky:delta=0.5,focal", None, None)
    assert "One curve: the losses: dice = tversky." in draw_curves(rows, GRADIENT, 0.1).caption


def test_the_axis_is_the_tversky_index_in_balanced_images_only():
    rows = make_rows("dice", None, None)
    assert "Tversky" in draw_curves(rows, LOSS, 0.5).figure.get_supxlabel()
    assert "Tversky" not in draw_curves(rows, LOSS, 0.4).figure.get_supxlabel()


# --- the family ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree():
    return draw_family()


def test_every_row_is_drawn_or_follows_or_is_a_mistake_of_nobody(tree):
    texts = [text.get_text().replace("\n", " ") for text in all_texts(tree.figure)]
    said = " | ".join(texts)
    arrows = [row for row in identities() if not row.follows and row.one != row.other and row.when]
    for row in arrows:
        if row.holds:
            assert any(told(row).split(",")[0].split(" ")[0] in text for text in texts), row
    wrong = [row for row in arrows if not row.holds and row.claim]
    assert said.count("✗") == len(wrong) + 1  # and the legend's
    assert not any("None" in text for text in texts) and any("no β" in text for text in texts)
    assert all(family._replaced(row.why, family.GREEK) in tree.caption for row in wrong)
    assert "by themselves: jaccard, cosine-tversky, adaptive-focal" in said


def test_the_docs_give_a_reason_for_each_mark(tree):
    text = (Path(__file__).parents[3] / "docs/figures.md").read_text(encoding="utf-8")
    in_docs = re.findall(r"^\| (✗\d) \| .* \| (v2, [^|]+) \| ", text, re.M)
    assert in_docs and in_docs == re.findall(r"(✗\d) \((v2, [^)]+)\)", tree.caption)


def test_everything_has_its_place():
    drawn = [row for row in identities() if not row.follows and row.when]
    synonyms = {row.one for row in identities() if not row.when}
    assert set(PLACES) == {name for row in drawn for name in (row.one, row.other)} - synonyms
    assert len(set(PLACES.values())) == len(PLACES)
    assert set(WAYS) <= {(row.one, row.other, row.holds) for row in drawn}


def test_no_label_hides_a_loss_or_another_label(tree):
    from matplotlib.patches import FancyBboxPatch

    [axes] = tree.figure.axes
    boxes = boxes_of(all_texts(tree.figure), tree.figure)
    shapes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(shapes) == len(PLACES)
    for text, box in boxes.items():
        inside = [shape for shape in shapes if overlap(box, shape)]
        assert len(inside) <= 1
        for shape in inside:  # a name within its box
            assert shape.x0 <= box.x0 and box.x1 <= shape.x1 and shape.y0 <= box.y0 and box.y1 <= shape.y1, text
        assert tree.figure.bbox.x0 <= box.x0 and box.x1 <= tree.figure.bbox.x1, text
    for (a, one), (b, other) in combinations(boxes.items(), 2):
        assert not overlap(one, other), (a, b)


def test_no_arrow_passes_through_a_loss_that_is_not_its_own(tree):
    from matplotlib.patches import FancyArrowPatch

    halves = np.array(family.BOX) / 2 - 0.01
    middles = np.array([family.middle(name) for name in PLACES])
    arrows = [patch for patch in tree.figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    for arrow in arrows:
        points = arrow._path_original.vertices  # type: ignore[attr-defined]
        along = np.concatenate([np.linspace(a, b, 50) for a, b in pairwise(points)])
        assert not (np.abs(along[:, None] - middles) < halves).all(-1).any()


@pytest.mark.parametrize("change", [{"constant": 0.1}, {"holds": False}])
def test_a_row_that_is_not_so_is_not_drawn(monkeypatch, change):
    table = [replace(row, **change) if row.one == "focal" else row for row in identities()]
    monkeypatch.setattr(family, "identities", lambda: tuple(table))
    with pytest.raises(LabError, match=r"expected of focal \(gamma=0\) is.* cross-entropy"):
        draw_family()


def test_every_row_stands():
    verify(identities())


# --- files ---------------------------------------------------------------------------------------------------------


def test_the_same_figure_is_the_same_file_and_tells_what_it_shows(tmp_path):
    for ending, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        for name in ("a", "b"):
            write_plot(draw_curves(make_rows("dice,focal", None, None), LOSS, 0.5), tmp_path / f"{name}{ending}")
        content = (tmp_path / f"a{ending}").read_bytes()
        assert content.startswith(start) and content == (tmp_path / f"b{ending}").read_bytes()
    assert "cross-entropy" not in (tmp_path / "a.svg").read_text()
    assert "Losses over p" in (tmp_path / "a.svg").read_text()  # for those who do not see it


def test_a_picture_is_opaque_and_not_blank(tmp_path, tree):
    from PIL import Image

    for plot in (tree, draw_curves(make_rows(None, None, None), GRADIENT, 0.1)):
        write_plot(plot, tmp_path / "x.png")
        pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGBA"))
        assert pixels.shape[1] == 1050 and (pixels[..., 3] == 255).all()
        ink = (pixels[..., :3] < 200).any(-1)
        assert 0.005 < ink.mean() < 0.5
        quarters = [part for half in np.array_split(ink, 2) for part in np.array_split(half, 2, axis=1)]
        assert all(part.mean() > 0.002 for part in quarters)


def test_a_figure_that_is_written_leaves_nothing_behind(tmp_path):
    import matplotlib.pyplot as plt

    seen = []
    for _ in range(3):
        plot = draw_curves(make_rows("dice,focal", None, None), LOSS, 0.5)
        write_plot(plot, tmp_path / "x.svg")
        seen.append(weakref.ref(plot.figure))
        del plot
    gc.collect()
    assert [figure() for figure in seen] == [None] * 3 and plt.get_fignums() == []

"""Figures: SVG that can be set into a page, text that stays text, and places that are the numbers'."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from folders import there, write_folder

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.contents.compared import comparison_parts
from unifocal.lab.report.figures.curves import learning, sweep
from unifocal.lab.report.figures.lesions import histogram
from unifocal.lab.report.figures.matrix import level, matrix
from unifocal.lab.report.figures.means import cases, means
from unifocal.lab.report.figures.ranks import critical_difference
from unifocal.lab.report.figures.scatter import precision_recall
from unifocal.lab.report.figures.style import (
    IN_PAGE,
    INK,
    Drawing,
    finish,
    for_page,
    inches,
    new_figure,
    rows_axes,
    saved,
    styled,
)
from unifocal.lab.report.figures.trials import landscape
from unifocal.lab.report.parts import Text, every
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.writing import build
from unifocal.lab.statistics.intervals import fold_means, over_seeds


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    study = read_study(write_folder(tmp_path_factory.mktemp("study")))
    [block] = analyse(study, "DSC")
    return block, study


def made(name="x", text="plain"):
    with styled():
        figure = new_figure(1.5)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o-", color=INK)
        rows_axes(axes, [text, "b"], "label")
        return finish(figure, name, "alt", "caption")


def test_a_figure_in_the_page_has_the_pages_colours_and_no_ids_of_its_own():
    first, second = made("first"), made("second")
    for drawing in (first, second):
        assert (
            drawing.svg.startswith("<svg viewBox=") and "<style" not in drawing.svg and "<metadata" not in drawing.svg
        )
        assert not any(colour in drawing.svg for colour in IN_PAGE)
        assert "currentColor" in drawing.svg and "font-family" not in drawing.svg
        ids = re.findall(r' id="([^"]+)"', drawing.svg)
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', drawing.svg))
        assert ids and len(ids) == len(set(ids)) and set(ids) == used
    ids = [set(re.findall(r' id="([^"]+)"', drawing.svg)) for drawing in (first, second)]
    assert not ids[0] & ids[1]


def test_text_stays_text_and_a_dollar_a_dollar():
    drawing = made(text="<a> $x_1^2$ & b")
    assert "&lt;a&gt; $x_1^2$ &amp; b</text>" in drawing.svg
    assert b"&lt;a&gt; $x_1^2$ &amp; b</text>" in drawing.file
    assert drawing.pdf.startswith(b"%PDF") and b"/FontFile2" in drawing.pdf  # fonts embedded


def test_the_same_figure_is_the_same_file():
    assert made().file == made().file and made().pdf == made().pdf


def test_for_page_leaves_no_reference_to_nothing():
    svg = (
        '<?xml?><svg width="1" viewBox="0 0 1 1"><defs><path id="m"/></defs><g id="g"><use xlink:href="#m"/></g></svg>'
    )
    page = for_page(svg, "n")
    assert '<path id="n-m"/>' in page and 'xlink:href="#n-m"' in page and 'id="g"' not in page


def places(drawing, marker):
    """x in px of each use of a marker."""
    return [float(x) for x in re.findall(rf'<use xlink:href="#{marker}" x="([\d.]+)"', drawing.svg)]


def test_means_lie_where_they_are(block):
    block, study = block
    drawing = means(block, over_seeds(fold_means(study.cases)), "means")
    table = block.means("DSC").loc[list(block.ranked), "mean"]
    markers = re.findall(r'<path id="([^"]+)"[^>]*d="M 0 2\.75', drawing.svg)  # ms 5.5
    assert len(markers) == 1
    x = np.array(places(drawing, markers[0]))
    # Means and places are in one straight relation.
    slope = np.diff(x) / np.diff(table)
    assert len(x) == 3 and slope == pytest.approx(slope[0], rel=1e-3) and slope[0] > 0
    assert f"tversky {table['tversky:delta=0.7']:.3f}" in drawing.alt


def test_an_open_dot_is_a_fold_whatever_the_seeds(tmp_path):
    study = read_study(write_folder(tmp_path, "dice,focal", seeds=(0, 1, 2), with_runs=False))
    [section] = [part for part in build(study) if part.id == "results"]
    drawing = next(part for part in every(Drawing, [section]) if part.name.startswith("means-"))
    [marker] = re.findall(r'<path id="([^"]+)"[^>]*d="M 0 2\n?\s*C', drawing.svg)  # ms 4
    assert len(places(drawing, marker)) == 2 * 3 and "Open dots are means of single folds" in drawing.caption


def test_of_two_losses_there_are_no_critical_differences(tmp_path):
    """Mean ranks part losses that the test of the pair does not, or the other way about."""
    study = read_study(write_folder(tmp_path, "dice,focal", with_runs=False))
    [block] = analyse(study, "DSC")
    found = comparison_parts(block, "x")
    assert not any(part.name.startswith("critical-difference") for part in every(Drawing, found))
    assert any(
        part.text.startswith("No diagram of mean ranks over cases: of two losses") for part in every(Text, found)
    )


def test_many_cases_are_no_longer_dots(tmp_path):
    [block] = analyse(read_study(write_folder(tmp_path, "dice,focal", cases=800, with_runs=False)), "DSC")
    drawing = cases(block, "cases")
    assert "dots are cases beyond them" in drawing.caption and len(drawing.svg) < 60_000


def test_figures_of_many_losses_say_that_they_show_some(tmp_path):
    losses = ",".join(f"tversky:delta={n / 100}" for n in range(30, 60))
    [block] = analyse(read_study(write_folder(tmp_path, losses, with_runs=False)), "DSC")
    drawing = there(precision_recall(block, "x"))
    assert "The first 24 of 30 losses" in drawing.caption
    assert drawing.svg.count("delta=") == 24
    drawing = there(critical_difference(block.friedman, dict(block.names), "x"))
    assert "The first 24 of 30 losses." in drawing.caption and drawing.svg.count("delta=") == 24


def test_the_critical_difference_diagram_tells_ranks_and_bars(block):
    block, _ = block
    drawing = there(critical_difference(block.friedman, dict(block.names), "cd"))
    for loss, rank in block.friedman.mean_ranks.items():
        assert f"{block.names[loss]} {rank:.2f}" in drawing.alt
    assert f"CD {block.friedman.critical_difference:.2f}" in drawing.svg


def test_the_scale_of_many_ranks_begins_near_the_best(tmp_path):
    losses = ",".join(f"tversky:delta={n / 100}" for n in range(30, 60))
    best_differs = lambda loss, seed, case: 0.5 + 0.1 * ((7 * loss + 11 * case) % 30) / 30  # noqa: E731
    [block] = analyse(read_study(write_folder(tmp_path, losses, best_differs, with_runs=False)), "DSC")
    drawing = there(critical_difference(block.friedman, dict(block.names), "x"))
    first = int(block.friedman.mean_ranks.min())
    ticks = [int(text) for text in re.findall(r">(\d+)</text>", drawing.svg)]
    assert first > 5 and min(ticks) == first
    assert f"critical difference of {block.friedman.critical_difference:.2f} (Nemenyi" in drawing.caption


def test_learning_curves_say_that_they_are_of_the_loss():
    history = pd.DataFrame({"epoch": [0, 1], "train_loss": [1.0, 0.5], "validation_loss": [1.0, 0.7]})
    drawing = there(learning({"dice": [history]}, {"dice": "dice"}, "x"))
    assert ">loss</text>" in drawing.svg and "the loss of the training batches (dashed)" in drawing.caption


def test_a_level_is_sign_and_strength():
    assert [level(p, sign) for p, sign in ((0.2, 1), (0.05, 1), (0.01, -1), (0.0001, -1), (0.0001, 0))] == [
        0,
        1,
        -2,
        -3,
        0,
    ]


def test_the_matrix_of_many_losses_counts_pairs():
    levels = pd.DataFrame([[np.nan, 2, 0], [-2, np.nan, 3], [0, -3, np.nan]], index=list("abc"), columns=list("abc"))
    assert matrix(levels, dict(zip("abc", "abc", strict=True)), "m").alt == "Of 3 pairs of losses 2 are told apart."


def cut(svg):
    """Texts of an SVG file that do not lie on its canvas."""
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    found = []
    for node in root.iter("{http://www.w3.org/2000/svg}text"):
        text, style = node.text or "", node.attrib["style"]
        size = float(there(re.search(r"font-size: ([\d.]+)px", style))[1])
        put = node.get("transform", "")
        moved, turned = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", put), re.search(r"rotate\(([-\d.]+)", put)
        x, y = map(float, moved.groups() if moved else (node.attrib["x"], node.attrib["y"]))
        turn = np.deg2rad(float(turned[1]) if turned else 0.0)
        with styled():
            length = 72 * inches(text) * size / 9
        start = -length * (0.5 if "anchor: middle" in style else "anchor: end" in style)
        for along in (start, start + length):
            place = x + along * np.cos(turn), y + along * np.sin(turn)
            is_level = np.cos(turn) > 0.5  # its top, too, must be on it
            if not (0 <= place[0] <= width and 0.7 * size * is_level <= place[1] <= height):
                found.append(text)
    return found


LONG = "unified-focal:delta=0.6:gamma=0.1:weight=0.5"


@pytest.mark.parametrize(
    "losses",
    [
        f"dice,unified-focal,{LONG}",
        pytest.param(",".join(f"tversky:delta={n / 100}" for n in range(30, 46)), marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("error:constrained_layout")
def test_no_text_of_a_figure_is_cut(tmp_path, losses):
    study = read_study(write_folder(tmp_path, losses, cases=6))
    for drawing in every(Drawing, build(study, quick=True)):
        assert cut(drawing.file) == [], drawing.name
        # PDF is written from the same places.
        assert saved(drawing.figure, "svg", drawing.name) == drawing.file


@pytest.mark.parametrize("kind", ["plain", "names"])
def test_no_text_of_a_file_is_cut(folder_of, kind):
    paths = list((folder_of(kind) / "report/figures").glob("*.svg"))
    assert len(paths) > 8
    assert {path.name: cut(path.read_text()) for path in paths} == {path.name: [] for path in paths}


def test_lines_of_equal_f1_have_values_where_they_lie(block):
    block, _ = block
    drawing = there(precision_recall(block, "x"))
    axes = drawing.figure.axes[0]
    labels = [text for text in axes.texts if re.fullmatch(r"0\.\d+", text.get_text())]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 200]
    assert len(labels) == len(lines) >= 2
    for label, line in zip(labels, lines, strict=True):
        x, y = np.array(line.get_xdata()), np.array(line.get_ydata())
        assert 2 * x * y / (x + y) == pytest.approx(float(label.get_text()))
        assert label.get_position()[0] == x[0] and y[0] == pytest.approx(axes.get_ylim()[1])


def test_epochs_are_whole_numbers():
    for epochs in (1, 2, 15):
        drawing = there(learning({"a": [history(epochs)]}, {"a": "a"}, "x"))
        ticks = [tick for tick in drawing.figure.axes[0].get_xticks() if 1 <= tick <= epochs]
        assert ticks and all(tick == round(tick) for tick in ticks)
        assert not any("." in label.get_text() for label in drawing.figure.axes[0].get_xticklabels())


def history(epochs, start=1.0):
    n = np.arange(epochs)
    return pd.DataFrame({"epoch": n, "train_loss": start / (n + 1), "validation_loss": start / (n + 2)})


def test_long_learning_curves_are_thinned_and_short_ones_seen():
    drawing = there(learning({"a": [history(5000), history(4000, 2.0)], "b": []}, {"a": "a", "b": "b"}, "x"))
    assert len(drawing.svg) < 40_000 and "Learning curves of 1 losses" in drawing.alt
    assert learning({"a": [history(1)]}, {"a": "a"}, "x") is not None
    assert learning({"a": []}, {"a": "a"}, "x") is None


def test_a_sweep_of_words_is_drawn_in_their_order():
    table = pd.DataFrame(
        {
            "stage": [1, 1], "parameter": "order", "value": ["none", "other"], "loss": ["a", "b"],
            "validation": [0.5, np.nan], "validation_half_width": [0.1, np.nan], "test": [0.4, 0.3],
            "test_half_width": [np.nan, 0.1], "chosen": [True, False],
        }
    )  # fmt: skip
    drawing = there(sweep(table, "DSC", "x"))
    assert drawing.alt == "DSC by the value of each parameter; chosen: order = none."
    assert drawing.svg.index(">none<") < drawing.svg.index(">other<")
    assert sweep(pd.DataFrame(), "DSC", "x") is None


def test_marks_side_by_side_are_explained():
    table = pd.DataFrame({"parameter": "gamma", "value": ["0.1", "0.5"], "stage": 1, "chosen": [True, False]})
    for part in ("validation", "test"):
        table = table.assign(**{part: [0.5, 0.6], f"{part}_half_width": 0.1})
    assert "stand a little apart sideways" in there(sweep(table, "DSC", "sweep")).caption


def test_lesions_of_one_size_make_a_histogram():
    assert "3 lesions, median 20 px" in there(histogram({"lesion": pd.Series([20.0, 20.0, 20.0])}, "px", "x")).alt
    assert histogram({"lesion": pd.Series(dtype=float)}, "px", "x") is None


@pytest.mark.parametrize(
    ("sizes", "marks"),
    [([9, 2e6], {"10", "100", "1k", "10k", "100k", "1M"}), ([123456, 345678], {"150k", "200k", "300k"})],
)
def test_large_sizes_are_written_short(sizes, marks):
    drawing = there(histogram({"lesion": pd.Series(sizes, dtype=float)}, "mm³", "x"))
    words = set(re.findall(r">([^<>]+)</text>", drawing.svg))
    assert marks <= words and not any(len(word) > 4 and word.isdigit() for word in words)


def arrows(drawing):
    """Triangles in a figure: the ends of intervals that go on."""
    return len(re.findall(r'<path id="[^"]+" d="M [^CL]+L [^CL]+L [^CL]+z\s*"', drawing.svg))


def test_an_interval_that_is_cut_ends_in_an_arrow(tmp_path, block):
    whole, study = block
    by_fold = (0.3, 0.95, 0.99)
    cut = read_study(write_folder(tmp_path, "dice,focal", lambda loss, seed, case: by_fold[case % 3], cases=9))
    [beyond] = analyse(cut, "DSC")
    for drawing in (means(beyond, over_seeds(fold_means(cut.cases)), "x"), there(precision_recall(beyond, "x"))):
        assert "Arrows" in drawing.caption and arrows(drawing)
    drawing = means(whole, over_seeds(fold_means(study.cases)), "x")
    assert "Arrows" not in drawing.caption and not arrows(drawing)


@pytest.mark.parametrize(("half", "is_cut"), [(0.05, False), (0.2, True)])
def test_an_interval_of_a_sweep_that_is_cut_ends_in_an_arrow(half, is_cut):
    table = pd.DataFrame(
        {
            "stage": [1, 1], "parameter": "delta", "value": [0.3, 0.7], "loss": ["a", "b"], "validation": [0.5, 0.9],
            "validation_half_width": half, "test": [0.5, 0.6], "test_half_width": 0.1, "chosen": [False, True],
        }
    )  # fmt: skip
    drawing = there(sweep(table, "DSC", "x"))
    assert ("Arrows" in drawing.caption) == bool(arrows(drawing)) == is_cut
    assert cut(drawing.file) == []


def test_trials_of_a_search_by_each_parameter_and_plain_numbers_on_a_logarithmic_scale():
    rows = [
        {"fold": fold, "trial": n, "candidate": "focal", "loss": f"focal:gamma={gamma}", "gamma": gamma, "alpha": None}
        | {"is_default": n == 0, "state": "finished", "epochs": 4, "validation": 0.5 + 0.01 * n, "chosen": n == 3}
        for fold in range(2)
        for n, gamma in enumerate((2.0, 0.1, 1.0, 9.0))
    ]
    table = pd.DataFrame(rows).assign(test=float("nan"))
    drawing = there(landscape(table, "focal", ["gamma"], "lesion precision", "search"))
    words = re.findall(r">([^<>]+)</text>", drawing.svg)
    assert {"gamma", "0.1", "1", "5", "winner of a fold"} <= set(words) and not any("$" in word for word in words)
    assert cut(drawing.file) == []
    assert landscape(table, "dice", [], "DSC", "search") is None  # nothing of it varies

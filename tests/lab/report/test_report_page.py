"""The page as text, for every kind of comparison: sound HTML, whole by itself, and safe from names."""

import json
import platform
import re
from html.parser import HTMLParser

import pytest
from folders import there, write_folder
from kinds import KINDS

from unifocal.lab.errors import LabError
from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.contents.data import description_table
from unifocal.lab.report.contents.methods import settings_table, versions_table
from unifocal.lab.report.contents.training import cost_table
from unifocal.lab.report.page import render
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.writing import build, title, write_report
from unifocal.lab.training.execute import processor, versions

VOID = {"meta", "link", "br", "img"}
SLOW = {"hundred"}
SORTED = [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in KINDS]


class Sound(HTMLParser):
    """Collects what a page is made of, and fails where elements do not match."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refs: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[int] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        assert len(found) == len(attributes), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)
        self._look(tag, found)

    def handle_startendtag(self, tag, attributes):
        self._look(tag, dict(attributes))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def _look(self, tag, found):
        if "id" in found:
            self.ids.append(found["id"])
        self.refs += found.get("aria-labelledby", "").split()
        self.addresses += [found[name] for name in ("href", "xlink:href", "src", "action", "data") if name in found]
        self.addresses += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in found.values()))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))


def is_sound(text):
    page = Sound(text)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.refs) <= set(page.ids)
    for address in page.addresses:
        assert address.startswith("data:") or address.removeprefix("#") in page.ids, address
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in zip(page.headings, page.headings[1:], strict=False))
    bare = re.sub(r"https?://www\.w3\.org/[\w/]+", "", text)
    assert not re.search(r"https?://|@import", bare)
    return page


@pytest.mark.parametrize("kind", SORTED)
def test_every_page_is_sound_and_whole_by_itself(folder_of, kind):
    text = (folder_of(kind) / "report.html").read_text(encoding="utf-8")
    page = is_sound(text)
    assert "script" not in page.tags
    assert len(text) < 3e6
    for word in ("nan", "None", "NaN", "inf"):
        shown = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
        assert not re.search(rf"(?<![\w-]){word}(?![\w-])", shown), word


def test_names_are_names_and_no_markup(folder_of):
    text = (folder_of("names") / "report.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text and "<i>data</i>" not in text
    assert "&lt;i&gt;data&lt;/i&gt; &amp; co_1" in text


def test_numbers_of_tables_and_figures_go_up(folder_of):
    text = (folder_of("plain") / "report.html").read_text(encoding="utf-8")
    for word in ("Table", "Figure"):
        numbers = [int(n) for n in re.findall(rf"<b>{word} (\d+)\.</b>", text)]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 8


def test_the_page_tells_all_that_was_asked_for(folder_of):
    text = (folder_of("plain") / "report.html").read_text(encoding="utf-8")
    for section in ("answer", "cautions", "results", "pictures", "training", "data", "completeness", "methods"):
        assert f'<section id="{section}"' in text and f'href="#{section}"' in text
    for figure in ("means", "critical-difference", "rank-stability", "cases", "precision-recall", "sizes"):
        assert f'id="figure-{figure}-made-up-unet-lesion"' in text
    for table in (
        "main",
        "p-values",
        "p-values-unpaired",
        "pairs",
        "ranks",
        "over-cases",
        "lesions-and-volume",
        "sizes",
    ):
        assert f'id="table-{table}-made-up-unet-lesion"' in text
    for table in (
        "runs",
        "losses",
        "settings",
        "versions",
        "undefined",
        "cost-made-up-unet",
        "data-made-up",
        "folds-made-up",
    ):
        assert (f'id="table-{table}"' in text) == (table != "undefined")  # nothing is undefined here
    assert "6 of 6 runs" not in text and "9 of 9 runs finished" in text
    assert "FocalLoss(gamma=2.0, alpha=none)" in text  # the defaults, too


def test_failures_and_what_is_missing_are_told(folder_of):
    text = (folder_of("missing") / "report.html").read_text(encoding="utf-8")
    assert "7 of 9 runs finished, 1 failed, 1 not begun." in text
    assert "RuntimeError: &lt;b&gt;it&lt;/b&gt; broke &amp; $fell$" in text
    assert text.count('<td class="text bad">failed</td>') == 1 and text.count(">missing</td>") == 1
    assert "No pictures: the images" in text


def test_the_same_files_give_the_same_page(folder_of):
    out = folder_of("missing")
    before = (out / "report.html").read_bytes()
    study = read_study(out)
    assert render(title(study), build(study)).encode() == before


def test_several_data_sets_stand_side_by_side(tmp_path):
    write_folder(tmp_path, "dice,focal,tversky", cases=9, dataset="first", place="first")
    out = write_folder(tmp_path, "dice,focal,tversky", cases=9, dataset="second", place="second")
    study = read_study(out)
    text = render(title(study), build(study))
    is_sound(text)
    assert "Losses compared on first and second" in text
    assert 'id="results-first-unet-lesion"' in text and 'id="table-together"' in text
    assert 'id="figure-critical-difference-data-sets"' in text and "2 data sets" in text


def test_how_to_read_it_is_there_and_folded(folder_of):
    text = (folder_of("plain") / "report.html").read_text(encoding="utf-8")
    [block] = re.findall(r"<details>\s*<summary>How to read this</summary>(.*?)</details>", text, flags=re.S)
    for words in ("DSC (Dice) and IoU", "HD95: the distance in px", "within 1 px", "covers one pixel of it at least"):
        assert words in block


def test_the_cost_says_what_is_a_sum_and_a_half_epoch(tmp_path):
    out = write_folder(tmp_path, "dice", folds=2, cases=6)
    [path, *_] = sorted(out.glob("runs/*/result.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best_epoch": 1}))
    study = read_study(out)
    cost = there(cost_table(study.runs, analyse(study, "DSC")[0], "cost", ""))
    assert [cell.text for cell in cost.rows[0]][-2:] == ["12 s", "2.5 of 4"]
    assert cost.columns[-2] == "all runs together" and "which is their sum" in cost.notes[0]


def test_versions_name_processor_python_and_scipy(tmp_path):
    out = write_folder(tmp_path, "dice", folds=2, cases=6)
    for path in out.glob("runs/*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"processor": processor(), "versions": versions()}))
    table = there(versions_table(read_study(out)))
    assert table.rows[0][1].text == processor() != ""
    assert f"python {platform.python_version()}, " in table.rows[0][3].text and "scipy 1." in table.rows[0][3].text
    assert f"Python {platform.python_version()}, SciPy 1." in table.notes[1]


def test_every_row_of_the_data_has_a_name(tmp_path):
    out = write_folder(tmp_path, "dice", cases=6)
    record = json.loads((out / "dataset.json").read_text())
    record["dataset"]["facts"][0]["voxels"] = [1024, 0]
    (out / "dataset.json").write_text(json.dumps(record))
    [(name, experiment)] = read_study(out).experiments.items()
    names = [row[0].text for row in description_table(name, experiment).rows]
    assert "" not in names and names.count("lesion, % of image") == 2


def test_a_sweep_is_shown(tmp_path):
    out = write_folder(tmp_path, "dice,focal", cases=6)
    (out / "tuning.csv").write_text(
        "parameter,value,loss,validation,validation_half_width,test,test_half_width,stage,chosen\n"
        "delta,0.3,tversky:delta=0.3,0.61,0.02,0.58,0.03,1,False\ndelta,0.7,tversky:delta=0.7,0.63,0.02,0.57,0.03,1,True\n"
    )
    told = ["recommended: tversky:delta=0.7", "The data cannot tell the two apart."]
    (out / "tuning.json").write_text(json.dumps({"told": told, "confirm": "unifocal compare data --seeds 1,2,3"}))
    study = read_study(out)
    text = render(title(study), build(study))
    assert "<li>The data cannot tell the two apart.</li>" in text and "unifocal compare data --seeds 1,2,3" in text
    assert "The outcome is tversky:delta=0.7." in text and "<b>0.630 ± 0.020</b>" in text
    assert 'id="figure-sweep"' in text


def test_the_papers_values_stand_beside_ours(tmp_path, monkeypatch):
    from unifocal.lab import protocols

    result = protocols.Result("unet", "tversky:delta=0.7", "lesion", "DSC", 0.777, "Table 3")
    paper = protocols.load("generalised-focal/bus2017")
    monkeypatch.setattr(protocols, "_load", lambda name: protocols.Protocol(**{**vars(paper), "results": (result,)}))
    out = write_folder(tmp_path, cases=6, protocol="generalised-focal/bus2017")
    study = read_study(out)
    text = render(title(study), build(study))
    assert (
        "paper&#39;s DSC" in text and ">0.777</td>" in text and "The paper&#39;s values are from its own data" in text
    )
    assert "Here these settings are not the protocol&#39;s: losses dice,tversky:delta=0.7,focal in place of" in text
    assert re.search(r"; folds 3 in place of \d+; .*epochs 4 in place of \d+\.</p>", text)


@pytest.mark.parametrize(
    ("target", "why"), [("lesion", "are not on file"), ("tumour", "are of other networks or classes")]
)
def test_a_protocol_without_values_for_these_results_says_so(tmp_path, monkeypatch, target, why):
    from unifocal.lab import protocols

    results = () if target == "lesion" else (protocols.Result("unet", "dice", target, "DSC", 0.777, "Table 3"),)
    paper = protocols.load("generalised-focal/bus2017")
    monkeypatch.setattr(protocols, "_load", lambda name: protocols.Protocol(**{**vars(paper), "results": results}))
    study = read_study(write_folder(tmp_path, cases=6, protocol="generalised-focal/bus2017"))
    text = render(title(study), build(study, quick=True))
    assert f"The results of its paper {why}, so none stand beside these." in text


def test_what_was_given_in_place_of_a_papers_number_is_not_called_the_papers(tmp_path):
    study = read_study(write_folder(tmp_path, cases=6, protocol="generalised-focal/bus2017", size="64", batch_size=8))
    source = {row[0].text: row[2].text for row in settings_table(study).rows}
    assert source["size"] == "given in place of 128 (paper: v2, section III, 128 x 128 pixels)"
    assert source["batch_size"].startswith("nearest: the lab's own") and source["seeds"] == ""


def test_another_metric(tmp_path):
    study = read_study(write_folder(tmp_path, "dice,focal", cases=9))
    text = render(title(study), build(study, "HD95"))
    is_sound(text)
    assert "has the lowest mean HD95 for lesion in made up" in text
    assert text.index(">HD95 [px]</th>") < text.index(">DSC</th>")


def test_an_unknown_metric_is_told(tmp_path):
    with pytest.raises(LabError, match="Did you mean 'DSC'"):
        write_report(write_folder(tmp_path, cases=3), metric="DSCs")

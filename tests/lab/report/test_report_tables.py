"""One table, five ways: what LaTeX, Markdown, CSV and Parquet hold is what the table holds."""

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from folders import there, write_folder

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.contents.compared import NO_DIFFERENCE, pairs_table, ranks_table
from unifocal.lab.report.contents.results import best_of, main_table, metrics_table
from unifocal.lab.report.figures.ranks import critical_difference
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.tables import Cell, latex, make_table, markdown, write

ROWS = [["a_b & c", Cell("0.5 ± 0.1", True)], ["[x] 100% $", Cell("< 0.001", tone="better-2")]]


def test_what_ranks_are_over_is_told(tmp_path):
    losses = "dice,tversky,focal"
    [alone] = analyse(read_study(write_folder(tmp_path / "cases", losses)), "DSC")
    [grouped] = analyse(
        read_study(write_folder(tmp_path / "groups", losses, groups=[n // 2 for n in range(30)])), "DSC"
    )
    tables = [ranks_table(block, "x") for block in (alone, grouped)]
    assert all("over cases" in table.caption for table in tables)
    told = "over cases here and over groups in the diagram"
    assert [any(told in note for note in table.notes) for table in tables] == [False, True]
    diagram = there(critical_difference(grouped.friedman, dict(grouped.names), "x"))
    assert diagram.caption.startswith("Mean ranks over 15 groups")


def test_a_mean_whose_interval_leaves_what_is_possible_has_a_note(tmp_path):
    scores = {"whole": (0.5, 0.55, 0.6), "beyond": (0.3, 0.95, 0.99)}
    for name, by_fold in scores.items():
        score = lambda loss, seed, case, by_fold=by_fold: by_fold[case % 3]  # noqa: E731
        study = read_study(write_folder(tmp_path / name, "dice,focal", score, cases=9, dataset=name))
        table = there(metrics_table(analyse(study, "DSC")[0], ["DSC"], "x"))
        assert any("beyond what is possible" in note for note in table.notes) == (name == "beyond")


def test_no_difference_of_shares_is_told_that_cannot_be(tmp_path):
    """Two folds that disagree about three losses: what they would see is beyond 1, of distances it may be."""
    score = lambda loss, seed, case: 0.5 + (0.1 + 0.001 * case) * (loss - 1) * (-1) ** case  # noqa: E731
    study = read_study(write_folder(tmp_path, "dice,tversky,focal", score, folds=2))
    shares, distances = (pairs_table(analyse(study, metric)[0], "x") for metric in ("DSC", "HD95"))
    assert [row[-1].text for row in shares.rows] == ["none"] * 3 and NO_DIFFERENCE in shares.notes
    assert all(float(row[-1].text) > 1 for row in distances.rows) and NO_DIFFERENCE not in distances.notes


def test_a_volume_error_is_called_absolute(tmp_path):
    [block] = analyse(read_study(write_folder(tmp_path, "dice,focal", cases=6)), "volume error")
    table = there(metrics_table(block, ["volume error"], "x"))
    assert table.columns[1] == "absolute volume error"
    assert "by absolute volume error" in ranks_table(block, "x").caption


def small(rows=ROWS):
    return make_table("small", "Ten % of #1", ["loss", "DSC"], rows, notes=["Seen ≥ 2."])


def test_latex_is_a_booktabs_table():
    assert latex(small()) == (
        "% packages: booktabs, graphicx, [table]{xcolor}\n"
        "\\begin{table}\n\\centering\n\\caption{Ten \\% of \\#1}\\label{tab:small}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"
        "\\begin{tabular}{lr}\n\\toprule\nloss & DSC \\\\\n\\midrule\n"
        "a\\_b \\& c & \\textbf{0.5 $\\pm$ 0.1} \\\\\n"
        "{[}x] 100\\% \\$ & \\cellcolor{blue!20}$<$ 0.001 \\\\\n"
        "\\bottomrule\n\\end{tabular}}\n\\par\\smallskip\\footnotesize Seen $\\geq$ 2.\n\\end{table}\n"
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("漢1", "{[}U+6F22]1"),
        ("Ｄ２", "D2"),
        ("Nguyễn", "Nguyen"),
        ("e\N{COMBINING ACUTE ACCENT}", "é"),
        ("\x07ſ⅔", "{[}U+0007]s2/3"),
        ("Łódź ½", "Łódź ½"),
    ],
)
def test_a_name_in_latex_is_what_pdflatex_can_set(name, written):
    assert f"\n{written} & 1 \\\\\n" in latex(small([(name, "1")]))


def test_latex_tells_of_the_encoding_that_a_name_needs():
    assert latex(small([("Dąb", "1")])).startswith("% packages: booktabs, graphicx, [T1]{fontenc}\n")


def test_a_long_table_breaks_over_pages():
    text = latex(small([(f"loss {n}", "0") for n in range(41)]))
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1 and r"\endhead" in text
    assert "tabular}" not in text and text.count(r" \\") == 41 + 2  # rows, caption, heading


def test_markdown():
    assert markdown(small()) == (
        "Ten % of #1\n\n| loss | DSC |\n| --- | ---: |\n"
        "| a\\_b & c | **0.5 ± 0.1** |\n| \\[x] 100% $ | \\< 0.001 |\n\nSeen ≥ 2.\n"
    )


def test_a_bar_in_a_name_does_not_end_a_cell():
    row = markdown(small([("a|b\nc", "1")])).splitlines()[4]
    assert re.split(r"(?<!\\)\|", row)[1:-1] == [r" a\|b c ", " 1 "]


def test_csv_and_parquet_are_unrounded(tmp_path):
    data = pd.DataFrame({"loss": ["NA", "b"], "mean": [1 / 3, np.nan], "n": [3, 4], "best": [True, False]})
    table = make_table("x", "c", ["loss"], [["a"]], data)
    written = {path.suffix: path for path in write(table, tmp_path)}
    assert set(written) == {".csv", ".parquet", ".md", ".tex"}
    pd.testing.assert_frame_equal(pd.read_parquet(written[".parquet"]), data)
    back = pd.read_csv(written[".csv"], keep_default_na=False, na_values={"mean": [""]})
    pd.testing.assert_frame_equal(back, data)


@pytest.mark.parametrize("kind", ["plain", "names"])
def test_every_column_has_a_name(folder_of, kind):
    tables = list((folder_of(kind) / "report/tables").glob("*.csv"))
    assert len(tables) > 8
    for path in tables:
        columns = path.read_text().splitlines()[0].split(",")
        assert "" not in columns and len({*columns}) == len(columns), path.name
        assert list(pd.read_parquet(path.with_suffix(".parquet")).columns) == columns


def test_the_main_table_holds_what_can_be_computed_from_the_results(folder_of):
    out = folder_of("plain")
    table = pd.read_parquet(out / "report/tables/main-made-up-unet-lesion.parquet")
    cases = read_study(out).cases
    for row in table.itertuples():
        values = cases[(cases["loss"] == row.loss) & (cases["metric"] == row.metric)]
        folds = values.groupby("fold")["value"].mean()
        assert row.mean == pytest.approx(folds.mean())
        # t(0.975, 2) = 4.302653
        assert row.half_width == pytest.approx(4.302653 * folds.std(ddof=1) / 3**0.5, rel=1e-6, abs=1e-12)
    best = table[(table["metric"] == "DSC") & table["best"]]
    assert best["loss"].tolist() == ["focal"]
    text = (out / "report/tables/main-made-up-unet-lesion.md").read_text()
    mean, half = best[["mean", "half_width"]].iloc[0]
    assert f"| focal | **{mean:.3f} ± {half:.3f}** |" in text


def test_nothing_is_best_on_fewer_cases(tmp_path):
    """One loss finds nothing on some cases, so that its distance is that of the easy ones."""
    out = write_folder(tmp_path, "dice,focal", lambda loss, seed, case: 0.0 if loss and case % 2 else 0.5 + 0.1 * loss)
    study = read_study(out)
    [block] = analyse(study, "DSC")
    assert best_of(block, "DSC") == {"dice"} and best_of(block, "HD95") == set()
    [note] = [note for note in there(main_table(block, study, "x")).notes if "without a best" in note]
    assert note == "Undefined on more cases for some losses than for others, so without a best: HD95."


def test_means_that_are_written_alike_are_both_the_best(tmp_path):
    score = lambda loss, seed, case: (0.7, 0.7001, 0.5)[loss] + 0.001 * case  # noqa: E731
    [block] = analyse(read_study(write_folder(tmp_path, "dice,focal,tversky", score)), "DSC")
    assert block.means("DSC")["mean"].nunique() == 3 and best_of(block, "DSC") == {"dice", "focal"}


def braces(text):
    """Depth of braces at the end, escaped ones left out; never below 0."""
    depth = 0
    for character in re.sub(r"\\[{}\\]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    return depth


@pytest.mark.parametrize("kind", ["plain", "names", "missing"])
def test_every_latex_table_is_well_formed(folder_of, kind):
    paths = sorted((folder_of(kind) / "report/tables").glob("*.tex"))
    assert len(paths) > 5
    for path in paths:
        text = path.read_text()
        lines = text.splitlines()
        assert braces(text) == 0
        assert max(map(ord, text)) < 0x180, "pdflatex knows no such character"
        assert not re.search(r"(?<!\\)[%#_~^]", text.split("\n", 1)[1].replace(r"\label{tab:", "").replace("$^2$", ""))
        opened = re.findall(r"\\begin\{(\w+)\}", text)
        assert opened[::-1] == re.findall(r"\\end\{(\w+)\}", text)
        rules = [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
        columns = len(there(re.search(r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}", text))[1])
        body = [line for line in lines if line.endswith(r" \\") and not line.startswith(r"\caption")]
        assert body and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in body)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "names"])
def test_every_latex_table_compiles(folder_of, tmp_path, kind):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here: apt-get install texlive-latex-recommended")
    tables = sorted((folder_of(kind) / "report/tables").glob("*.tex"))
    packages = (
        r"\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}"
        r"\usepackage{booktabs,graphicx,longtable}\usepackage[table]{xcolor}"
    )
    compile_latex(packages, "\n".join(path.read_text() + "\n\\clearpage" for path in tables), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["", r"\usepackage[T1]{fontenc}"])
def test_any_name_compiles(tmp_path, encoding):
    """Without T1, the names that need none."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here: apt-get install texlive-latex-recommended")
    characters = [chr(code) for code in (*range(1, 0x530), *range(0x1E00, 0x2300), 0x6F22, 0xFB01, 0xFF21, 0x1F44D)]
    names = [name for name in characters if encoding or "fontenc" not in latex(small([(name, "1")]))]
    rows = [("".join(names[n : n + 12]), "1") for n in range(0, len(names), 12)]
    compile_latex(rf"{encoding}\usepackage{{booktabs,longtable}}", latex(small(rows)), tmp_path)


def test_a_table_that_is_cut_names_the_file_that_has_all(tmp_path):
    losses = ",".join(f"tversky:delta={n / 100}" for n in range(30, 43))
    [block] = analyse(read_study(write_folder(tmp_path, losses, cases=9)), "DSC")
    assert pairs_table(block, "x").notes[-1] == "The 66 pairs of the lowest p of 78; pairs-x.csv has all."


def compile_latex(packages, inputs, folder):
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}\n{inputs}\n\\end{{document}}"
    (folder / "all.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "all.pdf").stat().st_size > 10_000

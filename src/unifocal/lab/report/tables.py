"""One table object, written five ways: HTML (in the page's template), Markdown, LaTeX, CSV and Parquet.

People read `rows`, rounded and marked; programs read `data`, the same numbers unrounded and one row each.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from unifocal.lab.storage import write_text, write_with

LONG = 40  # rows from which LaTeX breaks a table over pages
TONES = {  # shades of LaTeX cells; HTML has them in its style sheet
    "better-3": "blue!30",
    "better-2": "blue!20",
    "better-1": "blue!10",
    "worse-3": "orange!45",
    "worse-2": "orange!30",
    "worse-1": "orange!15",
}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell; `tone` is a shade by name (`better-3` to `worse-3`, `bad`), or empty."""

    text: str
    bold: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table for people and for programs.

    Attributes:
        name: of its files.
        columns: headings; the first column holds the names of the rows.
        rows: cells, as many as columns; a text is a cell without marks.
        data: what is written as CSV and Parquet.
        texts: columns, by number, that hold words and not numbers.
        notes: sentences below it.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    data: pd.DataFrame
    texts: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    kind = "table"

    def is_text(self, column: int) -> bool:
        return column == 0 or column in self.texts


def make_table(
    name: str,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    data: pd.DataFrame | None = None,
    texts: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> Table:
    """A `Table`; without `data` the texts themselves are what programs get."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    if data is None:
        data = pd.DataFrame([[cell.text for cell in row] for row in cells], columns=list(columns), dtype=str)
    return Table(name, caption, tuple(columns), cells, data, frozenset(texts), tuple(notes))


def write(table: Table, folder: Path) -> list[Path]:
    """Write the four files of a table; returns them."""
    paths = {ending: folder / f"{table.name}.{ending}" for ending in ("csv", "parquet", "md", "tex")}
    write_with(paths["csv"], lambda part: table.data.to_csv(part, index=False))
    write_with(paths["parquet"], lambda part: table.data.to_parquet(part, index=False))
    write_text(paths["md"], markdown(table))
    write_text(paths["tex"], latex(table))
    return list(paths.values())


def markdown(table: Table) -> str:
    """GitHub's tables; the caption above, the notes below."""
    lines = [
        _markdown_row([_markdown(column) for column in table.columns]),
        _markdown_row(["---" if table.is_text(n) else "---:" for n in range(len(table.columns))]),
    ]
    for row in table.rows:
        texts = [_markdown(cell.text) for cell in row]
        lines.append(_markdown_row([f"**{t}**" if c.bold and t else t for t, c in zip(texts, row, strict=True)]))
    notes = [_markdown(note) for note in table.notes]
    return "\n\n".join([_markdown(table.caption), "\n".join(lines), *notes]) + "\n"


# A table that is wider than the text is made smaller.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"


def latex(table: Table) -> str:
    """A booktabs table, over several pages if it is long; shades need colortbl."""
    alignment = "".join("l" if table.is_text(n) else "r" for n in range(len(table.columns)))
    head = " & ".join(_latex(column) for column in table.columns) + r" \\"
    body = [" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows]
    caption, label = rf"\caption{{{_latex(table.caption)}}}", rf"\label{{tab:{table.name}}}"
    shaded = any(cell.tone in TONES for row in table.rows for cell in row)
    long = len(body) > LONG
    notes = [rf"\par\smallskip\footnotesize {_latex(' '.join(table.notes))}"] if table.notes else []
    if long:
        lines = [rf"\begin{{longtable}}{{{alignment}}}", caption + label + r" \\", r"\toprule", head, r"\midrule"]
        lines += [r"\endhead", *body, r"\bottomrule", r"\end{longtable}", *notes]
    else:
        begin = rf"{FIT}\begin{{tabular}}{{{alignment}}}"
        lines = [r"\begin{table}", r"\centering", caption + label, begin, r"\toprule", head, r"\midrule"]
        lines += [*body, r"\bottomrule", r"\end{tabular}}", *notes, r"\end{table}"]
    text = "\n".join(lines) + "\n"
    packages = ["booktabs", "longtable" if long else "graphicx", *(["[table]{xcolor}"] if shaded else [])]
    packages += ["[T1]{fontenc}"] if WITH_T1 & set(text) else []
    return f"% packages: {', '.join(packages)}\n{text}"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _markdown(text: str) -> str:
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "…": r"\dots{}",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": r"$^2$",
    "³": r"$^3$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{FRACTION SLASH}": "/",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "[": "{[}",  # after the end of a row it would begin an argument
} | {character: f"\\{character}" for character in "&%$#_{}"}
LAST = "\N{LATIN SMALL LETTER Z WITH CARON}"  # up to here pdflatex has a glyph for each character but these
WITHOUT_GLYPH = "ĦħĸĿŀŉŦŧ"
WITH_T1 = frozenset("«»ÐÞðþĄąĐđĘęĮįŊŋŲų")


def _latex(text: str) -> str:
    return "".join(map(_latex_character, unicodedata.normalize("NFC", " ".join(text.split()))))


def _latex_character(character: str) -> str:
    """As pdflatex can set it: what it has no glyph for as the plain characters it stands for, or as its number."""
    if character in SPECIAL:
        return SPECIAL[character]
    if " " <= character <= "~" or ("\N{NO-BREAK SPACE}" <= character <= LAST and character not in WITHOUT_GLYPH):
        return character
    plain = [part for part in unicodedata.normalize("NFKD", character) if part in SPECIAL or " " <= part <= "~"]
    return "".join(SPECIAL.get(part, part) for part in plain) or f"{{[}}U+{ord(character):04X}]"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold and text else text
    return rf"\cellcolor{{{TONES[cell.tone]}}}{text}" if cell.tone in TONES else text

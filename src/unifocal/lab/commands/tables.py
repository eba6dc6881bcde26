"""How the commands print tables: within the window, and with nothing cut off, however narrow it is."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Column, Table
    from rich.text import Text

INDENT = "  "
FOLDED = 14  # characters at least on a line of a text that may be broken anywhere


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], lines: bool = False, folded: Collection[str] = ()
) -> None:
    """Print rows below headings; texts may hold rich's markup.

    Args:
        lines: draw one between rows.
        folded: headings of long names, which may be broken anywhere.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=lines)
    for heading in headings:
        table.add_column(heading, overflow="fold", min_width=FOLDED if heading in folded else None)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(fitting(table, console))


def fitting(table: "Table", console: "Console") -> "RenderableType":
    """The table, no word of it broken; where the window is too narrow for that, a paragraph for each row.

    Columns with a `min_width` may be broken anywhere, into pieces of that width.
    """
    most = [_longest(column, console, whole=True) for column in table.columns]
    least = [
        min(full, column.min_width or full) if column.min_width else _longest(column, console, whole=column.no_wrap)
        for column, full in zip(table.columns, most, strict=True)
    ]
    room = console.width - 3 * len(most) - 1  # two spaces in each column, a line before each and one at the end
    if sum(least) > room:
        return _paragraphs(table, console)
    wishes = [full - need for full, need in zip(most, least, strict=True)]
    left = min(room - sum(least), sum(wishes))
    for column, need, wish in zip(table.columns, least, wishes, strict=True):
        column.min_width = None
        column.width = need + (left * wish // sum(wishes) if wish else 0)
    return table


def plain(text: str) -> str:
    """A text that holds no markup."""
    from rich.markup import escape

    return escape(text)


def say(console: "Console", text: str) -> None:
    """Print a text as it is: the terminal breaks its lines, so that a path in it can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _text(cell: "RenderableType", console: "Console") -> "Text":
    from rich.text import Text

    return cell if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)


def _longest(column: "Column", console: "Console", whole: bool) -> int:
    """Cells of the longest line, or of the longest word."""
    from rich.cells import cell_len

    texts = [_text(cell, console).plain for cell in (column.header, *column.cells)]
    return max((cell_len(part) for text in texts for part in (text.splitlines() if whole else text.split())), default=0)


def _paragraphs(table: "Table", console: "Console") -> "RenderableType":
    """Title, then the rows: the first cell, below it the others, each after its heading."""
    from rich.console import Group
    from rich.text import Text

    blocks: list[RenderableType] = [table.title] if table.title else []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        indent = ""
        for column, cell in zip(table.columns, row, strict=True):
            heading, text = _text(column.header, console), _text(cell, console)
            told = Text(" ").join(text.split()) if column.justify == "right" else text  # a number needs one line
            if heading.plain and told.plain:
                told = Text.assemble(heading, ": ", told)
            for line in told.wrap(console, console.width - len(indent)) if told.plain else ():
                line.rstrip()
                blocks.append(Text(indent) + line)
            indent = INDENT
    return Group(*blocks)

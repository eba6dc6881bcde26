"""How the commands that list something print it."""

from collections.abc import Iterable, Sequence


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], lines: bool = False) -> None:
    """Print rows below headings, long texts folded; `lines` draws one between rows. Texts may hold rich's markup."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=lines)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def plain(text: str) -> str:
    """A text that holds no markup."""
    from rich.markup import escape

    return escape(text)

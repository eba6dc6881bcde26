"""`unifocal layouts`: how data may be stored."""

from unifocal.lab.commands.tables import plain, print_table


def layouts() -> None:
    """Print the ways to store a data set that the lab knows, by name."""
    from unifocal.lab.data.layouts import LAYOUTS

    rows = [(f"[bold]{layout.name}[/bold]", plain(layout.looks)) for layout in LAYOUTS.values()]
    print_table(("name", "what lies in the folder"), rows, lines=True)

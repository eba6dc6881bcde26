"""`unifocal engines`: what computes the losses here."""

from unifocal.lab.commands.tables import plain, print_table


def engines() -> None:
    """Print what computes the losses on each device of this machine, and why the others do not."""
    import unifocal

    rows = []
    for report in unifocal.engines():
        if report.chosen:
            serves = "[green]yes: what engine='auto' takes[/green]"
        else:
            serves = "yes" if report.reason is None else f"[yellow]no:[/yellow] {plain(report.reason)}"
        rows.append((report.device, f"[bold]{report.engine}[/bold]", plain(report.detail), serves))
    print_table(("device", "engine", "is", "serves"), rows)

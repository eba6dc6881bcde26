"""`unifocal protocols`: the papers' experiments, and where each of their numbers comes from."""

from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.tables import plain, print_table

if TYPE_CHECKING:
    from unifocal.lab.protocols import Protocol
    from unifocal.lab.settings import Settings


def protocols(
    name: Annotated[str | None, typer.Argument(help="A protocol; all if not given.", show_default=False)] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print it as a file for --config.")] = False,
) -> None:
    """Print the papers' experiments by name, or all that one of them sets: values, sources, what is not the paper's."""
    from unifocal.lab.configuration import as_yaml as written
    from unifocal.lab.configuration import settings_from
    from unifocal.lab.errors import LabError
    from unifocal.lab.protocols import PROTOCOLS, load

    if name is None:
        if as_yaml:
            raise LabError(f"expected the protocol to print as YAML: {', '.join(PROTOCOLS)}; got none.")
        found = [load(protocol) for protocol in PROTOCOLS]
        print_table(
            ("name", "experiment", "paper"),
            [(f"[bold]{p.name}[/bold]", plain(p.title), plain(p.source)) for p in found],
        )
        return
    protocol, settings = load(name), settings_from({"protocol": name})
    if as_yaml:
        print(_heading(protocol) + "\n" + written(settings, protocol.sources), end="")
    else:
        _print(protocol, settings)


def _heading(protocol: "Protocol") -> str:
    """Title, paper and notes as comments of a YAML file."""
    from textwrap import wrap

    lines = [f"# {protocol.title}.", f"# {protocol.source}", "#"]
    for note in protocol.notes:
        lines += wrap(note, 118, initial_indent="# * ", subsequent_indent="#   ")
    return "\n".join(lines) + "\n"


def _print(protocol: "Protocol", settings: "Settings") -> None:
    from rich.console import Console

    from unifocal.lab.configuration import plain_text
    from unifocal.lab.settings import Settings

    console, defaults = Console(), Settings()

    def say(text: str) -> None:
        console.print(plain(text), highlight=False)

    def source_of(name: str) -> str:
        source = plain(protocol.sources[name])
        return f"[yellow]{source}[/yellow]" if source.startswith("nearest") else source

    console.print(f"[bold]{protocol.name}[/bold]: {plain(protocol.title)}\n{plain(protocol.source)}", highlight=False)
    rows = []
    for name in Settings.model_fields:
        if name in protocol.sources and name not in ("protocol", "losses"):
            value, default = getattr(settings, name), getattr(defaults, name)
            differs = "" if value == default else plain(plain_text(default))
            rows.append((name, plain(plain_text(value)), differs, source_of(name)))
    print_table(("setting", "value", "default, if another", "source"), rows)
    console.print(f"losses ({source_of('losses')}):", highlight=False)
    for loss in settings.losses:
        say(f"  {loss.label}")
    for parameter, values in protocol.sweep.items():
        say(f"sweep of {parameter}: {', '.join(values)}")
    if protocol.results:
        print_table(("loss", "network", "class", "the paper's numbers"), _results(protocol), folded=("loss",))
    for note in protocol.notes:
        say(f"* {note}")


def _results(protocol: "Protocol") -> list[tuple[str, ...]]:
    """A row for each loss, with its metrics in one cell."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for result in protocol.results:
        key = (plain(result.loss), result.network, result.target)
        rows.setdefault(key, []).append(f"{result.metric} {result.value:g}")
    return [(*key, ", ".join(numbers)) for key, numbers in rows.items()]

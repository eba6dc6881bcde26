"""`unifocal losses`: the family."""

from unifocal.lab.commands.tables import plain, print_table


def losses() -> None:
    """Print the family of losses: name, equation, paper.

    `unifocal plot` draws their curves, and which becomes which.
    """
    import unifocal

    rows = []
    for name in unifocal.available():
        loss = unifocal.build(name)
        what, equation, source = described(type(loss).__doc__ or "")
        title = f"[bold]{name}[/bold]\n{plain(loss.extra_repr())}\n{plain(what)}"
        rows.append((title, plain(equation), plain(source)))
    print_table(("name and parameters", "equation", "paper"), rows, lines=True)


def described(docstring: str) -> tuple[str, str, str]:
    """(first line, equation, source) of a loss's docstring."""
    from inspect import cleandoc
    from itertools import takewhile

    lines = cleandoc(docstring).splitlines()

    def block(start: str) -> list[str]:
        first = next((n for n, line in enumerate(lines) if line.strip().startswith(start)), len(lines))
        return [line.strip() for line in takewhile(lambda line: line.strip(), lines[first:])]

    source = takewhile(lambda line: not line.startswith("Differs:"), block("Source:"))
    return "".join(lines[:1]), "\n".join(block("L =")), " ".join(source).removeprefix("Source: ")

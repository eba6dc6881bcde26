"""Names short enough for figures and matrices: the arguments that all members of a group share are left out."""

from collections.abc import Sequence

from unifocal.lab.choices import Choice

LONGEST = 34  # characters of a name in a figure


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Label to short name: `tversky:delta=0.7` is `tversky` where there is no other, else it keeps what tells it apart.

    Where all are one loss, with other parameters each, its name is left out, too. No two labels get the same name.
    """
    choices = {label: Choice.parse(label) for label in labels}
    is_sweep = _is_sweep(list(choices.values()))
    names = {}
    for label, choice in choices.items():
        others = [other.arguments for other in choices.values() if other.name == choice.name]
        telling = [
            f"{key}={value}".replace(" ", "")
            for key, value in sorted(choice.arguments.items())
            if any(key not in other or other[key] != value for other in others)
        ]
        names[label] = " ".join(telling if is_sweep and telling else [choice.name, *telling])
    return names


def in_full(label: str, name: str) -> str:
    """A short name in a sentence that says which loss it is: `unified-focal with delta=0.7, gamma=0.2`."""
    loss = Choice.parse(label).name
    return name if name.split(maxsplit=1)[0] == loss else f"{loss} with {name.replace(' ', ', ')}"


def shared(labels: Sequence[str]) -> str:
    """What all losses are, where their short names are parameters alone; else empty."""
    choices = [Choice.parse(label) for label in labels]
    if not _is_sweep(choices):
        return ""
    first, *others = choices
    alike = [
        f"{key}={value}".replace(" ", "")
        for key, value in sorted(first.arguments.items())
        if all(key in other.arguments and other.arguments[key] == value for other in others)
    ]
    return f"{first.name} with {', '.join(alike)}" if alike else first.name


def _is_sweep(choices: Sequence[Choice]) -> bool:
    return len(choices) > 1 and len({choice.name for choice in choices}) == 1


def clipped(name: str, length: int = LONGEST) -> str:
    """The name, its middle left out where it is too long."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[:half]}…{name[-half:]}"

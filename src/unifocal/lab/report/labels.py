"""Names short enough for figures and matrices: the arguments that all members of a group share are left out."""

from collections.abc import Sequence

from unifocal.lab.choices import Choice

LONGEST = 34  # characters of a name in a figure


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Label to short name: `tversky:delta=0.7` is `tversky` where there is no other, else it keeps what tells it apart.

    Where all are one loss, with other parameters each, its name is left out, too. No two labels get the same name.
    """
    choices = {label: Choice.parse(label) for label in labels}
    is_sweep = len(choices) > 1 and len({choice.name for choice in choices.values()}) == 1
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


def clipped(name: str, length: int = LONGEST) -> str:
    """The name, its middle left out where it is too long."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[:half]}…{name[-half:]}"

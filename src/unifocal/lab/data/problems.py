"""How problems of a data set are told: all at once, up to a limit, with the nearest known word."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from unifocal.lab.words import counted

SHOWN = 20  # problems listed in one message


def listed(headline: str, problems: Sequence[str]) -> str:
    n = len(problems)
    lines = [f"{headline}: {counted(n, 'problem')}.", *(f"  {text}" for text in problems[:SHOWN])]
    if n > SHOWN:
        lines.append(f"  ... and {n - SHOWN} more")
    return "\n".join(lines)


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence with the known word nearest to `word`; empty if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def some(names: Iterable[str], limit: int = 6) -> str:
    """The first few names, and how many more there are."""
    words = list(names)
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more

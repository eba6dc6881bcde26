"""What a page is made of, in order: the template knows each by its `kind`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from unifocal.lab.report.figures.style import Drawing
from unifocal.lab.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; a lead one is set larger."""

    text: str
    is_lead: bool = False
    kind = "text"


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]
    kind = "bullets"


@dataclass(frozen=True)
class Code:
    text: str
    kind = "code"


@dataclass(frozen=True)
class Tile:
    """One picture of a gallery: its SVG, what stands below it, what it shows."""

    svg: str
    title: str
    note: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of one case; `defs` holds what several of them show."""

    name: str
    caption: str
    defs: str
    tiles: tuple[Tile, ...]
    kind = "gallery"


@dataclass(frozen=True)
class Sheet:
    """A figure that is a file alone, drawn when it is written; the page has a word of it."""

    name: str
    draw: Callable[[], "Figure"]
    kind = "sheet"


@dataclass(frozen=True)
class Fold:
    """Parts that are shown when asked for."""

    title: str
    parts: tuple["Part", ...]
    kind = "fold"


@dataclass(frozen=True)
class Section:
    """Parts under a heading; sections of a section are its sub-sections."""

    id: str
    title: str
    parts: tuple["Part", ...]
    kind = "section"

    @property
    def sections(self) -> tuple["Section", ...]:
        return tuple(part for part in self.parts if isinstance(part, Section))


Part = Text | Bullets | Code | Gallery | Sheet | Fold | Section | Table | Drawing
Kind = TypeVar("Kind")


def parts(*candidates: "Part | Iterable[Part | None] | None") -> tuple[Part, ...]:
    """Those that are there, in order; lists are laid flat."""
    found: list[Part] = []
    for candidate in candidates:
        if candidate is None:
            continue
        one = hasattr(candidate, "kind")
        found += [candidate] if one else [part for part in candidate if part is not None]  # type: ignore[list-item, union-attr]
    return tuple(found)


def captioned(part: Kind, title: str = "", end: str = "") -> Kind:
    """A part whose captions begin with `title`, unless they name it anyway, and end with `end`."""
    if isinstance(part, Section | Fold):
        return replace(part, parts=tuple(captioned(inner, title, end) for inner in part.parts))
    if not isinstance(part, Table | Drawing | Gallery):
        return part
    beginning = f"{title}: " if title and title not in part.caption else ""
    stop = "." if end and not part.caption.endswith(".") else ""
    return replace(part, caption=f"{beginning}{part.caption}{stop}{end}")


def every(kind: type[Kind], of: Iterable[Any]) -> Iterator[Kind]:
    """All parts of a kind, also within sections and folds."""
    for part in of:
        if isinstance(part, kind):
            yield part
        if isinstance(part, Section | Fold):
            yield from every(kind, part.parts)

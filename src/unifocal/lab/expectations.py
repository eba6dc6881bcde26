"""What a setting expects, in words, read off its type: `epochs` expects a whole number from 1 up."""

from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")
NUMBERS = {int: "whole number", float: "number"}


def expected(field: FieldInfo) -> str:
    """What a value of this setting must be, as in `expected ...; got ...`."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, notes: Iterable[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*arguments[1:], *notes])
    if origin in (Union, UnionType):
        return _words(next(kind for kind in arguments if kind is not NoneType), notes) + ", or none"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return _several(arguments, _limits(notes))
    if annotation in NUMBERS:
        return f"a {NUMBERS[annotation]}{_range(_limits(notes))}"
    return {bool: "true or false", Path: "a path"}.get(annotation, "a text")


def _several(kinds: tuple[Any, ...], limits: dict[str, Any]) -> str:
    """Of several values, with commas."""
    kind, notes = kinds[0], []
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
    if kind not in NUMBERS:
        return "names, with commas between them"
    if Ellipsis not in kinds:
        return f"{len(kinds)} {NUMBERS[kind]}s{_range(_limits(notes))}, with a comma between them"
    most = f"{limits['min_length']} to {limits['max_length']} " if "max_length" in limits else ""
    return f"{most}{NUMBERS[kind]}s{_range(_limits(notes))}, with commas between them"


def _limits(notes: Iterable[Any]) -> dict[str, Any]:
    """Bounds of a value, or of the number of values, as pydantic keeps them."""
    found: dict[str, Any] = {}
    for note in notes:
        inner = note.metadata if isinstance(note, FieldInfo) else [note]
        found |= {name: getattr(entry, name) for entry in inner for name in LIMITS if hasattr(entry, name)}
    return found


def _range(limits: dict[str, Any]) -> str:
    """` from 0 to 1`, ` above 0 and below 1`, ` from 1 up`."""
    parts = []
    if "ge" in limits:
        parts.append(f"from {limits['ge']}" + (f" to {limits['le']}" if "le" in limits else " up"))
    if "gt" in limits:
        parts.append(f"above {limits['gt']}")
    if "lt" in limits:
        parts.append(f"below {limits['lt']}")
    return " " + " and ".join(parts) if parts else ""

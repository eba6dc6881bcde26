"""Arguments of a loss, checked against the type and the interval that its field declares."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, field, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_INTERVAL = re.compile(r"([\[(])(-?\d+(?:\.\d+)?), (inf|-?\d+(?:\.\d+)?)([\])])")


def within(interval: str, default: Any = MISSING) -> Any:
    """A field for numbers in an interval such as "[0, 1)": one, or each of a sequence, as its type says."""
    return field(default=default, metadata={"interval": interval})


def nearest(word: str, known: Iterable[str]) -> str:
    """The clause of an error message that offers the nearest known spelling, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_arguments(loss: Any) -> None:
    """Check every field of a loss; numbers become floats or ints, sequences tuples: equal losses then print alike."""
    types = get_type_hints(type(loss))
    for f in fields(loss):
        name = f"{type(loss).__name__}: {f.name}"
        declared = types[f.name]
        kinds = get_args(declared) if get_origin(declared) in (UnionType, Union) else (declared,)
        setattr(loss, f.name, _checked(name, kinds, f.metadata.get("interval"), getattr(loss, f.name)))


def _checked(name: str, kinds: Sequence[Any], interval: str | None, value: Any) -> Any:
    if value is None and NoneType in kinds:
        return None
    if get_origin(kinds[0]) is Literal:
        return check_option(name, get_args(kinds[0]), value)
    if kinds[0] is bool:
        words = [word for kind in kinds[1:] for word in get_args(kind)]  # of a Literal
        if not isinstance(value, bool) and not (isinstance(value, str) and value in words):
            offer = nearest(value, words) if isinstance(value, str) else ""
            expected = " or ".join(["True or False", *map(repr, words)])
            raise TypeError(f"{name} must be {expected}; got {value!r}.{offer}")
        return value
    item = int if int in kinds or Sequence[int] in kinds else float
    if hasattr(value, "tolist"):  # of tensors and arrays
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and Sequence[item] in kinds:  # type: ignore[valid-type]
        return tuple(check_number(f"{name}, each of them,", item, interval, v) for v in value)
    if item not in kinds:
        raise TypeError(f"{name} must be a sequence of numbers; got {value!r}.")
    return check_number(name, item, interval, value)


def check_option(name: str, options: Sequence[str], value: Any) -> str:
    """Return the value if it is one of the options."""
    if value not in options:
        offer = nearest(value, options) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}; got {value!r}.{offer}")
    return str(value)


def check_number(name: str, kind: type, interval: str | None, value: Any) -> float | int:
    """Return the value as a float or an int if it is one and lies in the interval."""
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real) or math.isnan(value):
        expected = ("an integer" if kind is int else "a number") + (f" in {interval}" if interval else "")
        raise TypeError(f"{name} must be {expected}; got {value!r}.")
    number: float | int = kind(value)
    if interval and not _lies_in(interval, number):
        raise ValueError(f"{name} must lie in {interval}; got {value!r}.")
    return number


def _lies_in(interval: str, number: float) -> bool:
    parts = _INTERVAL.fullmatch(interval)
    assert parts, interval
    low, high = float(parts[2]), float(parts[3])
    above = number >= low if parts[1] == "[" else number > low
    return above and (number <= high if parts[4] == "]" else number < high)

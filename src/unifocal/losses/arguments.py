"""Arguments of a loss that know their range, declared where the field is and checked when a loss is made."""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, field, fields
from numbers import Real
from typing import Any

__all__ = ["check_arguments", "choice", "nearest", "within"]

_INTERVAL = re.compile(r"([\[(])(-?\d+(?:\.\d+)?), (inf|-?\d+(?:\.\d+)?)([\])])")


def within(interval: str, default: Any = MISSING) -> Any:
    """A number in an interval such as "[0, 1)"; a sequence of such numbers, or None, where the default allows it."""
    return field(default=default, metadata={"interval": interval})


def choice(*options: str, default: str) -> Any:
    """One of a few words."""
    return field(default=default, metadata={"options": options})


def nearest(word: str, known: Iterable[str]) -> str:
    """The clause of an error message that offers the nearest known spelling, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_arguments(loss: Any) -> None:
    """Check every field of a loss that was declared by `within` or `choice`; sequences become tuples of floats."""
    for f in fields(loss):
        value = getattr(loss, f.name)
        if "options" in f.metadata:
            _check_option(type(loss).__name__, f, value)
        elif "interval" in f.metadata:
            setattr(loss, f.name, _checked_number(type(loss).__name__, f, value))


def _check_option(owner: str, f: "Field[Any]", value: object) -> None:
    options = f.metadata["options"]
    if value not in options:
        raise ValueError(
            f"{owner}: {f.name} must be one of {', '.join(map(repr, options))}; got {value!r}."
            + (nearest(value, options) if isinstance(value, str) else "")
        )


def _checked_number(owner: str, f: "Field[Any]", value: Any) -> Any:
    kinds = str(f.type)
    if value is None and "None" in kinds:
        return None
    if "Sequence" in kinds:
        listed = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(listed, (list, tuple)):
            return tuple(_in_interval(owner, f.name, f.metadata["interval"], v) for v in listed)
        if "float" not in kinds.replace("Sequence[float]", ""):
            raise TypeError(f"{owner}: {f.name} must be a sequence of numbers, one per class; got {value!r}.")
    return _in_interval(owner, f.name, f.metadata["interval"], value)


def _in_interval(owner: str, name: str, interval: str, value: Any) -> float:
    parsed = _INTERVAL.fullmatch(interval)
    assert parsed, interval
    left, low, high, right = parsed.groups()
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise TypeError(f"{owner}: {name} must be a number in {interval}; got {value!r}.")
    number = float(value)
    above = number > float(low) or (left == "[" and number == float(low))
    below = number < float(high) or (right == "]" and number == float(high))
    if not (above and below):
        raise ValueError(f"{owner}: {name} must lie in {interval}; got {value!r}.")
    return number

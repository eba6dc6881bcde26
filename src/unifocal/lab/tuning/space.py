"""What a search may try: `unified-focal:gamma=0.05..0.9:delta=0.3..0.9,dice,focal:gamma=0.1..10:log`.

Losses are written as everywhere in the lab, with commas. An argument is

    gamma=0.5           a value, the same in every trial
    gamma=0.1..0.9      a range
    gamma=0.1..10:log   a range, drawn evenly on a logarithmic scale
    order=paper/scalar  a choice

and a loss without arguments has the ranges of `usual`. None of these signs means anything to a shell.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unifocal.lab.choices import LossChoice, plain_value, split_list
from unifocal.lab.errors import LabError
from unifocal.lab.tuning.usual import USUAL

DIGITS = 3  # significant ones of a value that is tried: nobody would write more
EXAMPLE = "Example: --search unified-focal:gamma=0.1..0.9:delta=0.3..0.9,dice"


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, drawn evenly or, if `log`, evenly in their logarithms."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (":log" if self.log else "")

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def keep(self, value: float) -> float:
        """The nearest number of the range."""
        return min(max(value, self.low), self.high)

    def taken(self, value: float) -> float:
        """The number that is tried where `value` is drawn."""
        return self.keep(float(f"{value:.{DIGITS}g}"))


@dataclass(frozen=True)
class Options:
    """One of several values."""

    values: tuple[Any, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return "/".join(f"{value}".replace(" ", "") for value in self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values

    def taken(self, value: Any) -> Any:
        return value


Domain = Range | Options
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A loss, the arguments that it has in every trial, and those that vary.

    Attributes:
        defaults: what the loss takes for those that vary if nothing is said.
    """

    base: LossChoice
    free: Mapping[str, Domain]
    defaults: Values = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells it from the other losses of the space."""
        return self.base.label

    @property
    def holds_defaults(self) -> bool:
        """Might a trial happen to try the defaults?"""
        return all(self.defaults[name] in domain for name, domain in self.free.items())

    def loss(self, values: Values) -> LossChoice:
        """The loss with these values of what varies; with the defaults it is written as people write it."""
        if dict(values) == dict(self.defaults):
            return self.base
        return self.base.model_copy(update={"arguments": {**self.base.arguments, **values}})

    def __str__(self) -> str:
        return ":".join([self.base.label, *(f"{name}={self.free[name]}" for name in sorted(self.free))])


@dataclass(frozen=True)
class Space:
    """The losses of a search, each with what varies of it."""

    candidates: tuple[Candidate, ...]

    @property
    def bases(self) -> tuple[LossChoice, ...]:
        """Every loss at its defaults."""
        return tuple(candidate.base for candidate in self.candidates)

    def named(self, name: str) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.name == name)

    def corners(self) -> Iterator[LossChoice]:
        """Losses that all can be built only if every loss of the space can."""
        for candidate in self.candidates:
            yield candidate.base
            for name, domain in candidate.free.items():
                for value in domain.ends:
                    yield candidate.loss({**candidate.defaults, name: value})

    def __str__(self) -> str:
        return ",".join(map(str, self.candidates))


def parse_space(text: str) -> Space:
    """Read a space; a name, an argument or a range that cannot be is a LabError."""
    candidates = tuple(_candidate(entry) for entry in split_list(text))
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabError(f"expected each loss once; {', '.join(twice)} stands twice. Give it one range that holds both.")
    if not candidates:
        raise LabError(f"expected losses to search; got none. {EXAMPLE}")
    if len(candidates) == 1 and not candidates[0].free:
        raise LabError(
            f"expected something to choose from: a range or several losses; got {text.strip()!r} alone. {EXAMPLE}"
        )
    return Space(candidates)


def _candidate(entry: str) -> Candidate:
    name, *parts = (part.strip() for part in entry.split(":"))
    fixed: dict[str, Any] = {}
    free: dict[str, Domain] = {} if parts else {key: _domain(text, entry) for key, text in _usual(name).items()}
    for part in _with_scales(parts):
        key, equals, text = (word.strip() for word in part.partition("="))
        if not equals or not key or not text:
            raise LabError(f"expected argument=value, =low..high or =a/b; got {part!r} in {entry.strip()!r}. {EXAMPLE}")
        if key in fixed or key in free:
            raise LabError(f"expected each argument once; {key!r} stands twice in {entry.strip()!r}.")
        if ".." in text or "/" in text:
            free[key] = _domain(text, entry)
        else:
            fixed[key] = plain_value(text)
    base = LossChoice(name=name, arguments=fixed)
    return Candidate(base, free, _defaults(base, free))


def _usual(name: str) -> Mapping[str, str]:
    return USUAL.get(name, {})


def _with_scales(parts: Sequence[str]) -> list[str]:
    """`log` goes with the range before it."""
    joined: list[str] = []
    for part in parts:
        if part == "log" and joined:
            joined[-1] += ":log"
        else:
            joined.append(part)
    return joined


def _domain(text: str, entry: str) -> Domain:
    body, _, scale = text.partition(":")
    if ".." not in body:
        values = tuple(plain_value(word.strip()) for word in body.split("/") if word.strip())
        if scale or len(set(map(str, values))) < max(len(values), 2):
            raise LabError(f"expected two different values or more, as in a/b; got {text!r} in {entry.strip()!r}.")
        return Options(values)
    low, high = (_number(word, text, entry) for word in body.split("..", 1))
    if low >= high or (scale and low <= 0):
        more = ", and above 0 on a logarithmic scale" if scale else ""
        raise LabError(f"expected low..high, the lower number first{more}; got {text!r} in {entry.strip()!r}.")
    return Range(low, high, bool(scale))


def _number(word: str, text: str, entry: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise LabError(f"expected two numbers, as in 0.1..0.9; got {text!r} in {entry.strip()!r}.")
    return number


def _defaults(base: LossChoice, free: Mapping[str, Domain]) -> dict[str, Any]:
    """What the loss takes for each of the free arguments; one that it does not have is a LabError."""
    for key, domain in free.items():
        base.model_copy(update={"arguments": {**base.arguments, key: domain.ends[0]}}).build()
    loss = base.build()
    return {key: getattr(loss, key) for key in free}

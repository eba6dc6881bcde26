"""Losses and networks as people write them: a name, and the arguments that differ from the defaults."""

import ast
import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from unifocal.lab.errors import LabError


class Choice(BaseModel):
    """A member of a family by its name, with arguments: `unified-focal:gamma=0.2:delta=0.7`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name:argument=value:argument=value`."""
        name, *pairs = text.strip().split(":")
        arguments: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not key.strip() or not value.strip():
                raise LabError(
                    f"expected name:argument=value:...; got {pair!r} in {text!r}. "
                    "Example: unified-focal:gamma=0.2:delta=0.7"
                )
            if key.strip() in arguments:
                raise LabError(f"expected each argument once; {key.strip()!r} stands twice in {text!r}.")
            arguments[key.strip()] = plain_value(value.strip())
        return cls(name=name.strip(), arguments=arguments)

    @classmethod
    def parse_list(cls, text: str) -> tuple[Self, ...]:
        """Read several, with commas; commas within brackets separate values: `focal:alpha=[0.25,0.75],dice`."""
        entries = split_list(text)
        if not entries:
            raise LabError(f"expected at least one name; got none. {cls.where()}")
        return tuple(cls.parse(entry) for entry in entries)

    @classmethod
    def where(cls) -> str:
        """What tells the names there are, in a sentence."""
        return ""

    @property
    def label(self) -> str:
        """How tables and folders call it: the text it was parsed from, in canonical order and without spaces."""
        arguments = (f"{key}={self.arguments[key]}".replace(" ", "") for key in sorted(self.arguments))
        return ":".join([self.name, *arguments])

    def __str__(self) -> str:
        return self.label


class LossChoice(Choice):
    """A loss by its registry name."""

    @classmethod
    def where(cls) -> str:
        return "`unifocal losses` prints the family."

    def plain(self) -> Self:
        """The same loss with nothing written out that it would take anyway: alike where all parameters are."""
        from unifocal.lab.data.cases import IGNORE

        own, usual = self.build(ignore_index=IGNORE), LossChoice(name=self.name).build(ignore_index=IGNORE)
        values = {key: getattr(own, key) for key in self.arguments if getattr(own, key) != getattr(usual, key)}
        return self.model_copy(update={"arguments": {key: _shortest(value) for key, value in values.items()}})

    def build(self, **defaults: Any) -> Any:
        """The loss as a torch module; a name or argument that does not exist is a LabError with the nearest one.

        `defaults` are arguments of every loss that its own arguments override.
        """
        import unifocal

        try:
            return unifocal.build(self.name, **{**defaults, **self.arguments})
        except (TypeError, ValueError) as error:
            raise LabError(f"loss {self.label!r}: {error}") from error


class NetworkChoice(Choice):
    """A network by its name."""

    @classmethod
    def where(cls) -> str:
        return "`unifocal networks` prints them."


def _shortest(value: Any) -> Any:
    """1 for 1.0, and lists for tuples: what equal values share, and JSON has."""
    if isinstance(value, tuple):
        return [_shortest(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def split_list(text: str) -> list[str]:
    """The entries between commas; commas within brackets part nothing."""
    return [entry for entry in re.split(r",(?![^\[(]*[\])])", text) if entry.strip()]


def plain_value(text: str) -> Any:
    """A number, list, True, False or None as such; anything else is a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value

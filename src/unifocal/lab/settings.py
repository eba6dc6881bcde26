"""What a comparison is asked to do, checked before anything starts, and the identity of each of its runs.

A run's identity is the hash of everything its numbers depend on: loss, fold, training settings, the content of the
data and who is in which fold. Device and number of threads are left out: they change rounding and time, not the
experiment, and a run begun on one machine may be finished on another.
"""

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from unifocal.lab.errors import LabError

FORMAT = 1  # of the run folders; raise it when old ones can no longer be read


class LossChoice(BaseModel):
    """A loss by its registry name, with the arguments that differ from its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name:argument=value:argument=value`, e.g. `unified-focal:gamma=0.2:delta=0.7`."""
        name, *pairs = text.strip().split(":")
        arguments: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not key.strip() or not value.strip():
                raise LabError(
                    f"expected a loss as name:argument=value:...; got {pair!r} in {text!r}. "
                    "Example: unified-focal:gamma=0.2:delta=0.7"
                )
            if key.strip() in arguments:
                raise LabError(f"expected each argument once; {key.strip()!r} stands twice in {text!r}.")
            arguments[key.strip()] = _value(value.strip())
        return cls(name=name.strip(), arguments=arguments)

    @property
    def label(self) -> str:
        """How tables and folders call it: the text it was parsed from, in canonical order and without spaces."""
        arguments = (f"{key}={self.arguments[key]}".replace(" ", "") for key in sorted(self.arguments))
        return ":".join([self.name, *arguments])

    def build(self) -> Any:
        """The loss as a torch module; a name or argument that does not exist is a LabError with the nearest one."""
        import unifocal

        try:
            return unifocal.build(self.name, **self.arguments)
        except (TypeError, ValueError) as error:
            raise LabError(f"loss {self.label!r}: {error}") from error


def parse_losses(text: str) -> tuple[LossChoice, ...]:
    """Read losses separated by commas; commas within brackets separate values: `focal:alpha=[0.25,0.75],dice`."""
    entries = [entry for entry in re.split(r",(?![^\[(]*[\])])", text) if entry.strip()]
    if not entries:
        raise LabError("expected at least one loss; got none. `unifocal losses` prints the family.")
    return tuple(LossChoice.parse(entry) for entry in entries)


class Settings(BaseModel):
    """A comparison: which losses, on which folds, trained how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    losses: Annotated[tuple[LossChoice, ...], Field(min_length=1)]
    folds: Annotated[int, Field(ge=2)] = 5
    epochs: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    size: Annotated[int, Field(ge=32)] = 128  # the U-Net halves four times, and its norms need more than one pixel
    width: Annotated[int, Field(ge=1)] = 64
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    augment: bool = True
    layout: str | None = None
    groups: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None

    @field_validator("layout")
    @classmethod
    def _known(cls, layout: str | None) -> str | None:
        from unifocal.lab.data.reading import check_layout

        check_layout(layout)
        return layout

    @field_validator("losses")
    @classmethod
    def _each_once(cls, losses: tuple[LossChoice, ...]) -> tuple[LossChoice, ...]:
        labels = [loss.label for loss in losses]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"each loss once, please; {', '.join(twice)} stands twice")
        return losses


def make_settings(**values: Any) -> Settings:
    """Settings from plain values; every mistake is told at once, as a LabError."""
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            + ("" if problem["loc"] == ("losses",) else f"; got {problem['input']!r}")
            for problem in error.errors()
        ]
        raise LabError("these settings are impossible:\n" + "\n".join(lines)) from None


@dataclass(frozen=True)
class Run:
    """One training: a loss on a fold."""

    loss: LossChoice
    fold: int
    settings: Settings
    data: str  # fingerprint of the images, masks and classes
    split: str  # fingerprint of this fold's train, validation and test cases

    def identity(self) -> dict[str, Any]:
        """Everything the numbers of this run depend on."""
        training = self.settings.model_dump(
            mode="json",
            include={"epochs", "seed", "size", "width", "batch_size", "learning_rate", "augment"},
        )
        return {
            "format": FORMAT,
            "loss": self.loss.model_dump(mode="json"),
            "fold": self.fold,
            **training,
            "data": self.data,
            "split": self.split,
        }

    @property
    def name(self) -> str:
        """Name of the run's folder: readable, and different whenever the identity is."""
        loss = re.sub(r"[^A-Za-z0-9.=-]+", "_", self.loss.label)[:60]
        return f"{loss}-fold{self.fold}-seed{self.settings.seed}-{fingerprint(self.identity())[:8]}"


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _value(text: str) -> Any:
    """A number, list, True, False or None as such; anything else is a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value

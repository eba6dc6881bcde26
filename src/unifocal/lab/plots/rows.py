"""Which losses are drawn, and in which panels: all in one row, or a row for each loss whose parameters vary."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError
from unifocal.lab.report.labels import short_names

CURVES = 8  # in a panel: as many as there are colours and dashes to tell apart
ROWS = 4
FIXED = ("activation", "batch", "class_weights", "reduction")  # arguments that the figure itself sets

OVERVIEW = "cross-entropy,focal,dice,focal-tversky,unified-focal"
PARTS = "asymmetric-focal,asymmetric-focal-tversky"  # of unified-focal, as in the paper's figure 2


@dataclass(frozen=True)
class Row:
    """Panels side by side.

    Attributes:
        title: the loss, where there is one only; else empty.
        curves: label of each curve, and its loss.
        varies: do the curves differ by numbers, rather than by their losses?
    """

    title: str
    curves: dict[str, LossChoice]
    varies: bool


def make_rows(losses: str | None, gamma: str | None, delta: str | None) -> list[Row]:
    """What `--losses`, `--gamma` and `--delta` ask for; what cannot be drawn is a LabError."""
    swept = {name: numbers(name, text) for name, text in (("gamma", gamma), ("delta", delta)) if text is not None}
    choices = LossChoice.parse_list(losses if losses is not None else PARTS if swept else OVERVIEW)
    twice = sorted({choice.label for choice in choices if choices.count(choice) > 1})
    if twice:
        raise LabError(f"expected each loss once in --losses; got {', '.join(twice)} more than once.")
    for choice in choices:
        _check(choice, swept)
    settings = [dict(zip(swept, values, strict=True)) for values in product(*swept.values())]
    if len(settings) > CURVES:
        counts = " x ".join(f"{len(values)} of {name}" for name, values in swept.items())
        raise LabError(
            f"expected at most {CURVES} curves for a loss; got {counts} = {len(settings)}. Give fewer values."
        )
    if len(settings) == 1:
        return [_of_losses([_with(choice, settings[0]) for choice in choices])]
    if len(choices) > ROWS:
        raise LabError(
            f"expected at most {ROWS} losses with several values of {' and '.join(swept)}, as each has panels of its "
            f"own; got {len(choices)}. Give fewer --losses, or one value for each."
        )
    return [Row(choice.label, {_told(s): _with(choice, s) for s in settings}, True) for choice in choices]


def numbers(name: str, text: str) -> list[float]:
    """The numbers of `--gamma 0.1,0.5`."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise LabError(f"--{name}: expected numbers with commas, as in 0.2,0.5; got {text!r}.") from None
    if len(set(values)) < len(values):
        raise LabError(f"--{name}: expected each number once; got {text!r}.")
    return values


def _of_losses(choices: Sequence[LossChoice]) -> Row:
    if len(choices) > CURVES:
        raise LabError(
            f"expected at most {CURVES} losses; got {len(choices)}. Give fewer --losses, or draw two figures."
        )
    for choice in choices:
        choice.build()
    names = short_names([choice.label for choice in choices])
    return Row("", {names[choice.label]: choice for choice in choices}, False)


def _check(choice: LossChoice, swept: dict[str, list[float]]) -> None:
    """Can the figure call this loss as it must, with these parameters?"""
    set_by_figure = [name for name in FIXED if name in choice.arguments]
    if set_by_figure:
        raise LabError(
            f"expected a loss without {', '.join(FIXED)}, which the figure sets; got {choice.label!r}. "
            f"Leave out {' and '.join(set_by_figure)}."
        )
    loss = choice.build()
    for name, values in swept.items():
        if name in choice.arguments:
            raise LabError(f"expected {name} once; got it in {choice.label!r} and in --{name}. Leave one of them out.")
        if not hasattr(loss, name):
            raise LabError(
                f"--{name}: expected losses that have a {name}; {choice.label!r} has none. Leave it out, or write out "
                "what else varies, as in --losses focal-tversky:exponent=0.5,focal-tversky:exponent=0.75"
            )
        for value in values:
            _with(choice, {name: value}).build()


def _with(choice: LossChoice, setting: dict[str, float]) -> LossChoice:
    return LossChoice(name=choice.name, arguments={**choice.arguments, **setting})


def _told(setting: dict[str, float]) -> str:
    """γ = 0.2, δ = 0.6"""
    return ", ".join(f"{ {'gamma': 'γ', 'delta': 'δ'}[name] } = {value:g}" for name, value in setting.items())

"""Arguments that several commands share, and every setting as an option, generated from `Settings`."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from unifocal.lab.choices import Choice
from unifocal.lab.configuration import ALIASES, option_of, parse_pairs, plain_text, settings_from
from unifocal.lab.errors import LabError
from unifocal.lab.settings import Settings, names_of

Data = Annotated[Path, typer.Argument(help="Folder of images and masks, 2D or 3D.", show_default=False)]
Groups = Annotated[
    Path | None, typer.Option(help="CSV that names the patient or group of each image.", show_default=False)
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        "--format",
        help="How DATA is stored, by name (`unifocal layouts`); found out if not given.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of settings; `unifocal protocols NAME --yaml` writes one to begin with.", show_default=False
    ),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="<name=value>", help="Any setting, by its name in YAML; as often as needed."),
]
Command = Callable[..., None]


def with_settings(*sections: str, proposed: bool = False, **defaults: str) -> Callable[[Command], Command]:
    """Give a command the settings of these sections as options, besides --protocol, --config and --set.

    The command takes `settings`, checked and complete, and its own arguments by keyword. Settings of other sections
    are reached by --config and --set.

    Args:
        proposed: of a protocol's losses take the one that its paper proposes.
        defaults: settings that are something else than `Settings` says, without a word.
    """

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
        shown = ["protocol", *(name for section in sections for name in names_of(section) if name != "protocol")]

        @wraps(command)
        def run(context: typer.Context, config: Path | None, pairs: list[str] | None, **values: Any) -> None:
            offered = {name: values.pop(name) for name in shown}
            given = {name: value for name, value in offered.items() if _is_given(context, name)}
            more = parse_pairs(pairs or [])
            twice = [f"{option_of(name)} and --set {name}" for name in given if name in more]
            if twice:
                raise LabError(f"expected each setting once; got {'; '.join(twice)}.")
            config = config.expanduser() if config else None
            command(settings=settings_from(given | more, config, defaults, proposed, more), **values)

        first, *others = _options(shown, sections, defaults)
        parameters = [_keyword("context", typer.Context), *own, first, _CONFIG, _PAIRS, *others]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        )
        return run

    return decorate


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_CONFIG, _PAIRS = _keyword("config", Config, None), _keyword("pairs", Pairs, None)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _options(names: list[str], sections: tuple[str, ...], defaults: dict[str, str]) -> Iterator[inspect.Parameter]:
    """An option for each setting: a text that `Settings` will check, or a flag."""
    panels = {name: section for section in sections for name in names_of(section)} | {"protocol": None}
    for name in names:
        field, option = Settings.model_fields[name], option_of(name)
        usual: Any = defaults.get(name, field.default)
        info: dict[str, Any] = {
            "help": (field.description or "").replace("[", r"\["),  # no markup of rich's
            "rich_help_panel": panels[name],
        }
        if field.annotation is bool:
            flags = typer.Option(f"{option}/--no-{option[2:]}", **info)
            yield _keyword(name, Annotated[bool, flags], usual)
            continue
        spellings = [option, *(option_of(alias) for alias, meant in ALIASES.items() if meant == name)]
        declared = typer.Option(*spellings, metavar=f"<{_metavar(field.annotation)}>", **info)
        shown = None if usual in (None, ()) else plain_text(usual).replace(", ", ",")
        yield _keyword(name, Annotated[str | None, declared], shown)


def _metavar(annotation: Any) -> str:
    """What is expected, in a word: `int`, `float,...`, `sgd|adam|adamw`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _metavar(arguments[0])
    if origin in (Union, UnionType):
        return _metavar(next(argument for argument in arguments if argument is not NoneType))
    if origin is Literal:
        return "|".join(str(argument) for argument in arguments)
    if origin is tuple:
        parts = [_metavar(argument) for argument in arguments if argument is not Ellipsis]
        return ",".join(parts) + (",..." if Ellipsis in arguments else "")
    if issubclass(annotation, Choice):
        return "name"
    return {str: "text", Path: "path"}.get(annotation, str(annotation.__name__))

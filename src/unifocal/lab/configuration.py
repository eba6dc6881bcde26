"""Settings from layers, each over the one before: defaults, a protocol, a YAML file, the command line.

A YAML file has a line for each setting, by the names of `Settings`, and may begin with a protocol:

    protocol: generalised-focal/kits19
    epochs: 20
    patch: 64, 128, 128      # or [64, 128, 128]
    losses: [dice, "unified-focal:gamma=0.2"]
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from unifocal.lab.documents import read_document
from unifocal.lab.errors import LabError
from unifocal.lab.protocols import PROTOCOLS, load
from unifocal.lab.settings import SECTIONS, Settings, changed, check_settings, names_of, text_of

ALIASES = {"seed": "seeds", "format": "layout"}  # other spellings of settings, everywhere


def settings_from(
    given: Mapping[str, Any],
    config: Path | None = None,
    defaults: Mapping[str, str] | None = None,
    proposed: bool = False,
    pairs: Collection[str] = (),
) -> Settings:
    """Settings from all layers; every mistake is a LabError that names its layer, and the line of a file.

    Args:
        given: from the command line, by the names of `Settings`.
        config: the YAML file.
        defaults: a command's own, below the protocol.
        proposed: of a protocol's losses take the one that its paper proposes.
        pairs: those of `given` that came by --set.
    """
    values: dict[str, Any] = dict(defaults or {})
    origins: dict[str, str] = {}
    written = read_settings(config) if config else {}
    name = given["protocol"] if "protocol" in given else written.get("protocol", ("none", ""))[0]
    if name in PROTOCOLS:  # another name is told below, with all else that is impossible
        protocol = load(name)
        values |= {key: entry.value for key, entry in protocol.entries.items()}
        if proposed:
            values["losses"] = protocol.proposes
        origins |= dict.fromkeys(protocol.entries, f"protocol {name}")
    values |= {key: value for key, (value, _) in written.items()}
    origins |= {key: origin for key, (_, origin) in written.items()}
    values |= given
    origins |= {key: f"--set {key}" if key in pairs else option_of(key) for key in given}
    return check_settings(values, origins)


def read_settings(path: Path) -> dict[str, tuple[Any, str]]:
    """The values of a settings file by name, each with the words that tell where it stands."""
    found: dict[str, tuple[Any, str]] = {}
    for key, entry in read_document(path).items():
        name, origin = name_of(key), f"{path}, line {entry.line}"
        if name in found:
            raise LabError(f"{origin}: {key!r} is the same setting as in {found[name][1]}. Remove one of them.")
        found[name] = (entry.value, origin)
    return found


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """Read `name=value`, each name once."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        name = name_of(key)
        if not equals or not name:
            raise LabError(f"expected name=value; got {pair!r}. Example: --set epochs=20")
        if name in found:
            raise LabError(f"expected each setting once; {name!r} is set twice.")
        found[name] = value.strip()
    return found


def name_of(word: str) -> str:
    """The name of a setting as people may spell it: with hyphens, or by an alias."""
    name = word.strip().replace("-", "_")
    return ALIASES.get(name, name)


def option_of(name: str) -> str:
    """A setting's option on the command line."""
    return "--" + name.replace("_", "-")


def as_yaml(settings: Settings, sources: Mapping[str, str]) -> str:
    """A settings file that reads back to the same settings.

    Those that differ from the defaults or have a source are set; the others stand there as comments.
    """
    active = {*changed(settings), *sources}
    blocks = []
    for section in SECTIONS:
        lines = [f"# {section}"]
        for name in names_of(section):
            text = Settings.model_fields[name].description or ""
            if name in active:
                lines += _setting(name, getattr(settings, name), sources.get(name, text))
            else:
                lines.append(f"# {name}: {plain_text(getattr(settings, name))}  # {text}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def plain_text(value: Any) -> str:
    """A value as a command line or a settings file takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(text_of(part) for part in value) if isinstance(value, tuple) else text_of(value)


def _setting(name: str, value: Any, comment: str) -> list[str]:
    parts = [text_of(part) for part in value] if isinstance(value, tuple) else []
    if (len(parts) > 1 and name in ("losses", "networks")) or any("," in part for part in parts):
        return [f"{name}:  # {comment}", *(f"  - {_scalar(part)}" for part in parts)]
    return [f"{name}: {_scalar(plain_text(value))}  # {comment}"]


def _scalar(text: str) -> str:
    written: str = yaml.dump(text, Dumper=_Texts, width=1000, allow_unicode=True)
    return written.removesuffix("...\n").strip()


class _Texts(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts without quotes where YAML can do without: all scalars are texts."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

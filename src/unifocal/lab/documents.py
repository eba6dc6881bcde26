"""YAML as settings are written in it: every scalar is a text, as on a command line, and has its line and its comment.

So `0.5`, `none` and `3.22, 1.62, 1.62` mean in a file what they mean behind an option, and no `no` turns into False.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unifocal.lab.errors import LabError


@dataclass(frozen=True)
class Entry:
    """What stands behind a key.

    Attributes:
        value: a text, or lists and mappings of texts.
        line: of the key, from 1.
        comment: behind the value on the key's line, or behind the key where the value begins below it.
        entries: the entries of a mapping.
    """

    value: Any
    line: int
    comment: str = ""
    entries: Mapping[str, "Entry"] = field(default_factory=dict)


def read_document(path: Path) -> dict[str, Entry]:
    """The entries of a YAML file; what is wrong with the file is a LabError that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"expected YAML in UTF-8; {path} is not ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise LabError(f"expected a YAML file; {path} cannot be read: {error.strerror}.") from None
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise LabError(f"{path}{where}: this is not YAML: {getattr(error, 'problem', None) or error}.") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise LabError(f"expected lines of `name: value`; {path} holds something else.")
    return dict(_entries(node, path, text.splitlines()))


def _entries(node: yaml.MappingNode, path: Path, lines: list[str]) -> Iterator[tuple[str, Entry]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(_plain(key_node)), key_node.start_mark.line + 1
        if key in seen:
            raise LabError(f"{path}, line {line}: {key!r} stands on line {seen[key]}, too. Remove one of them.")
        seen[key] = line
        end = value_node.end_mark if value_node.start_mark.line + 1 == line else key_node.end_mark
        rest = lines[line - 1][end.column :] if end.line + 1 == line else ""
        entries = dict(_entries(value_node, path, lines)) if isinstance(value_node, yaml.MappingNode) else {}
        yield key, Entry(_plain(value_node), line, rest.partition("#")[2].strip(), entries)


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(_plain(key)): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value) for value in node.value]
    return node.value

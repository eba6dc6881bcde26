"""The JSON and CSV files that come with data sets."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unifocal.lab.data.problems import suggest
from unifocal.lab.errors import LabError


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise LabError(f"expected the file {path}; it does not exist.") from None
    except ValueError as error:
        raise LabError(f"expected JSON; {path} cannot be read ({error}).") from None


def read_fields(path: Path, wanted: Sequence[str], expected: str) -> Mapping[str, Any]:
    """The content of a JSON file that has all these fields; `expected` tells a user what it should look like."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise LabError(f"expected {expected}; {path} holds no fields.")
    missing = [name for name in wanted if name not in content]
    if missing:
        raise LabError(f"expected {expected}; {path} lacks {', '.join(missing)}.{suggest(missing[0], content)}")
    return content


def mentions(path: Path, key: str) -> bool:
    """Is this a JSON file with such a key, readable or not?"""
    return path.is_file() and f'"{key}"' in path.read_text(encoding="utf-8-sig", errors="replace")


def read_column(path: Path, key: str, value: str) -> dict[str, str]:
    """One column of a CSV file by another; empty if the file or a column is not there."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return {row[key]: row[value] for row in rows if row.get(key) and row.get(value)}

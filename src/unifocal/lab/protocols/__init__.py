"""The papers' experiments by name: every number they set, and where it comes from.

A protocol is a YAML file below this folder, named by its path:

    title, source    what it is, and the paper
    based_on         a file whose settings it begins with; files that begin with _ are no protocols themselves
    notes            what is not exactly the paper's, and why
    proposes         the paper's own loss, which `unifocal train` takes
    settings         by the names of `Settings`; the comment on a setting's line is its source. Its first word says how
                     sure it is: `paper` (printed there, by notes taken from it), `code` (read in the authors' code, or
                     in the library they used), `nearest` (not to be had: the nearest documented number, or ours)
    sweep            parameters of the loss and the values tried, one parameter after the other
    results          the paper's numbers, for a report to print beside ours
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unifocal.lab.data.problems import suggest
from unifocal.lab.documents import Entry, read_document
from unifocal.lab.errors import LabError

FOLDER = Path(__file__).parent
PARTS = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.rglob("*.yaml")}
PROTOCOLS = tuple(sorted(name for name in PARTS if not name.rpartition("/")[2].startswith("_")))


@dataclass(frozen=True)
class Result:
    """A number that the paper reports."""

    network: str
    loss: str  # its label, as in the protocol's losses
    target: str  # the class, as the data set calls it
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Protocol:
    """An experiment of a paper.

    Attributes:
        notes: what is not exactly the paper's, a sentence or two each.
        proposes: the label of the paper's own loss.
        entries: what it sets, as texts, each with its source as comment.
        sweep: parameters of the loss and the values tried, in order.
    """

    name: str
    title: str
    source: str
    notes: tuple[str, ...]
    proposes: str
    entries: Mapping[str, Entry]
    sweep: Mapping[str, tuple[str, ...]]
    results: tuple[Result, ...]

    @property
    def sources(self) -> dict[str, str]:
        """Where each number comes from."""
        return {key: entry.comment for key, entry in self.entries.items()}

    @property
    def sweep_text(self) -> str:
        """The sweep as `unifocal tune` takes it: `delta=0.1,0.2;gamma=0,0.1`."""
        return ";".join(f"{parameter}={','.join(values)}" for parameter, values in self.sweep.items())


def check_protocol(name: str | None) -> None:
    """Raise a LabError that names the nearest protocol, if this is none."""
    if name is not None and name not in PROTOCOLS:
        raise LabError(f"expected a protocol: {', '.join(PROTOCOLS)}; got {name!r}.{suggest(name, PROTOCOLS)}")


def load(name: str) -> Protocol:
    """The protocol of that name; another name is a LabError with the nearest one."""
    check_protocol(name)
    return _load(name)


@cache
def _load(name: str) -> Protocol:
    entries: dict[str, Entry] = {"protocol": Entry(name, 0, "the settings of this protocol are below")}
    notes: list[str] = []
    plain: dict[str, Any] = {}
    for document in reversed(list(_lineage(name))):
        own = {key: entry.value for key, entry in document.items()}
        notes += own.pop("notes", [])
        plain |= own
        if "settings" in document:
            entries |= document["settings"].entries
    return Protocol(
        name=name,
        title=plain["title"],
        source=plain["source"],
        notes=tuple(notes),
        proposes=plain["proposes"],
        entries=entries,
        sweep={key: tuple(values) for key, values in plain.get("sweep", {}).items()},
        results=tuple(_results(plain.get("results", []))),
    )


def _lineage(name: str) -> Iterator[dict[str, Entry]]:
    """A file, the one it is based on, and so on."""
    while name:
        document = read_document(PARTS[name])
        yield document
        name = document["based_on"].value if "based_on" in document else ""


def _results(blocks: list[Any]) -> Iterator[Result]:
    for block in blocks:
        for loss, values in block["values"].items():
            for metric, value in zip(block["metrics"], values, strict=True):
                yield Result(block["network"], loss, block["class"], metric, float(value), block["source"])

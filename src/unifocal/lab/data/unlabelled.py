"""A folder of images without masks becomes a data set to predict on.

One file is one case. Where a network wants several sequences, a case is one volume that holds them all as channels, or
files of one stem, each ending in its number as nnU-Net has it (`a_0000.nii.gz`, `a_0001.nii.gz`) or in the name of its
sequence (`a_t2w.mha`, `a_adc.mha`). Masks beside their images, called as in the plain layout (`a_mask.png`), are left
out, and so are pictures among volumes, or volumes among pictures. A data set in a layout of its own is read as such,
whether it has masks or not.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.files import PICTURES, VOLUMES, files_in, is_volume, stem
from unifocal.lab.data.layouts.plain import MASK
from unifocal.lab.data.problems import SHOWN, listed, short, some
from unifocal.lab.data.reading import NoLayout, contents, list_dataset
from unifocal.lab.errors import LabError
from unifocal.lab.words import counted

KINDS = {2: ("pictures", PICTURES), 3: ("volumes", VOLUMES)}


def list_images(folder: str | Path, like: Dataset, layout: str | None = None) -> Dataset:
    """The cases of `folder`, to be read as those of `like` were: same sequences, same dimension.

    Raises LabError for a folder without such images, and for files that do not make up whole cases: all at once.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        what = "is a file: name its folder" if root.exists() else "does not exist"
        raise LabError(f"expected a folder of images; {root} {what}.")
    files = files_in(root)
    fitting = [path for path in files if is_volume(path) == (like.dimension == 3)]
    notes: list[str] = []
    if layout is None and fitting:
        images, masks = _parted(fitting, like.sequences)
        others = [path for path in files if is_volume(path) != (like.dimension == 3)]
        notes += _left_out(masks, "mask beside images", "masks beside images")
        notes += _left_out(others, "volume" if like.dimension == 2 else "picture")
        cases, problems = _cases(images, like.sequences)
    else:
        try:
            listed_set, problems = list_dataset(root, layout)
        except NoLayout:
            if layout is not None:
                raise
            raise _others(root, [path.name for path in files], like.dimension) from None
        cases = listed_set.cases
        if cases and listed_set.dimension != like.dimension:
            raise _others(root, [short(path) for case in cases for path in case.images], like.dimension)
    without = [case.id for case in cases if not case.images]
    if without:
        problems.append(f"{counted(len(without), 'case')} without an image: {some(without)}")
    if problems:
        raise LabError(listed(f"{root} cannot be predicted on as it is", problems))
    cases = tuple(replace(case, masks=()) for case in cases)
    there = replace(like, name=root.name, root=root, cases=cases, notes=tuple(notes))
    return replace(there, facts=(), splits=(), groups_file=None)


def _others(root: Path, images: Sequence[str], dimension: int) -> LabError:
    """What to say of a folder that holds nothing, or `images` of the other dimension."""
    kind, endings = KINDS[dimension]
    other, _ = KINDS[5 - dimension]
    expected = f"expected {kind} ({', '.join(endings)}), as the network was trained on {kind}"
    if images:
        advice = f"Name a folder of {kind}, or a model that was trained on {other}"
        return LabError(f"{expected}; {root} holds {other}: {some(images)}. {advice}.")
    advice = f"Name the folder in which the {kind} lie, or a data set in one of the layouts of `unifocal layouts`"
    return LabError(f"{expected}; {root} holds {contents(root)}. {advice}.")


def _left_out(files: Sequence[Path], one: str, several: str = "") -> list[str]:
    return [f"{counted(len(files), one, several)} left out: {some(path.name for path in files)}"] if files else []


def _parted(files: Sequence[Path], sequences: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Images, and those that are called as the mask of one."""
    ids = {_bare(path, sequences) for path in files}
    images: list[Path] = []
    masks: list[Path] = []
    for path in files:
        name, number = _split(stem(path), sequences)
        match = MASK.fullmatch(name)
        is_mask = number is None and match and match[2] and _split(match["stem"], sequences)[0] in ids
        (masks if is_mask else images).append(path)
    return images, masks


def _cases(files: Sequence[Path], sequences: Sequence[str]) -> tuple[tuple[Case, ...], list[str]]:
    if len(sequences) == 1:
        return _unique([Case(_bare(path, sequences), (path,), ()) for path in files])
    by_stem: dict[str, dict[int, Path]] = {}
    whole: list[Case] = []
    for path in files:
        name, number = _split(stem(path), sequences)
        if number is None:
            whole.append(Case(name, (path,), ()))
        else:
            by_stem.setdefault(name, {})[number] = path
    problems = []
    for name, found in by_stem.items():
        lost = [sequence for n, sequence in enumerate(sequences) if n not in found]
        if lost:
            problems.append(f"{name}: no file for {some(lost)}")
        whole.append(Case(name, tuple(found[n] for n in sorted(found)), ()))
    cases, repeated = _unique(whole)
    return cases, problems + repeated


def _unique(cases: Sequence[Case]) -> tuple[tuple[Case, ...], list[str]]:
    ids = [case.id for case in cases]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    return tuple(cases), [f"several files are called {name!r}: their names must differ" for name in twice[:SHOWN]]


def _bare(path: Path, sequences: Sequence[str]) -> str:
    return _split(stem(path), sequences)[0]


def _split(name: str, sequences: Sequence[str]) -> tuple[str, int | None]:
    """("a", 1) of `a_0001`, or of `a_adc` where ADC is the second sequence; ("a", None) where no sequence is named."""
    head, _, tail = name.rpartition("_")
    if head and tail.isdecimal() and len(tail) == 4 and int(tail) < len(sequences):
        return head, int(tail)
    names = [sequence.lower() for sequence in sequences]
    if head and tail.lower() in names:
        return head, names.index(tail.lower())
    return name, None

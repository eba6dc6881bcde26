"""What the rows of a benchmark say: tables, how the goals stand, and the figure of the README.

python benchmarks/report.py benchmarks/results/cpu.csv [PICTURE]
"""

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MAIN = "2x3x96^3"  # the shape of the figure and of the table in full

Row = dict[str, Any]


def shape_of(name: str) -> tuple[int, ...]:
    """2x3x96^3 -> (2, 3, 96, 96, 96)."""
    powers = (part.partition("^") for part in name.split("x"))
    return tuple(int(size) for size, _, times in powers for _ in range(int(times or 1)))


# ----------------------------------------------------------------------------------------------------- goals


class Goal(NamedTuple):
    """A bound on one quantity: what must hold and what is aimed at, for each engine that it is set for."""

    title: str
    bounds: dict[str, tuple[float, float]]  # engine, or * for every one: must, aim
    value: Callable[[Row, "Lookup"], float | None]
    at_least: int = 1_000_000  # voxel-classes
    up_to: float = math.inf
    heap: str = "warm"
    larger_is_better: bool = False


class Verdict(NamedTuple):
    """The worst case of a goal within a group of rows."""

    engine: str
    group: str
    goal: str
    value: float
    verdict: str  # "aim", "pass", "FAIL", or "" where nothing was asked for
    row: Row
    failing: dict[str, float]  # each loss that fails, with its worst value


class Lookup:
    """Finds a contender in the same cell as a row."""

    def __init__(self, rows: list[Row]) -> None:
        self.ratios = {self._key(r, r["contender"]): r.get("ratio") for r in rows if r.get("mode") == "eager"}

    def ratio(self, row: Row, contender: str) -> float | None:
        return self.ratios.get(self._key(row, contender))

    @staticmethod
    def _key(row: Row, contender: str) -> tuple[Any, ...]:
        return (*(row[k] for k in ("device", "heap", "threads", "shape", "dtype", "labels")), contender)


def against(peer: str) -> Callable[[Row, Lookup], float | None]:
    """Time in that peer's time."""

    def value(row: Row, lookup: Lookup) -> float | None:
        theirs = lookup.ratio(row, peer)
        return row["ratio"] / theirs if theirs and row.get("ratio") else None

    return value


def field(name: str) -> Callable[[Row, Lookup], float | None]:
    return lambda row, _: row.get(name)


def bandwidth(row: Row, _: Lookup) -> float | None:
    """Share of a copy's bandwidth that the voxel kernels reach on the bytes that must move."""
    return row["gb_per_s"] / row["copy_gb_per_s"] if row["kind"] == "sums" else None


DICE_CE, DICE_FOCAL = against("MONAI DiceCELoss"), against("MONAI DiceFocalLoss")
SMALL = 100_000
CPU_GOALS = (
    Goal("time / floor", {"native": (1.0, 0.6), "aten": (3.0, 2.0)}, field("ratio")),
    Goal("time / MONAI DiceCE", {"native": (1 / 3, 1 / 5)}, DICE_CE),
    Goal("time / MONAI DiceFocal", {"native": (1 / 5, 1 / 10)}, DICE_FOCAL),
    Goal("peak / logits", {"native": (1.1, 1.005)}, field("peak")),
    Goal("peak / logits, 10 M up", {"aten": (1.25, 1.005)}, field("peak"), at_least=10_000_000),
    Goal("tensors kept", {"native": (0, 0), "aten": (0, 0)}, field("kept_tensors")),
    Goal("default heap, 4 M up", {"native": (1, 0.35), "aten": (3, 2)}, field("ratio"), 4_000_000, heap="default"),
    Goal("below 0.1 M / DiceCE", {"native": (1, 0.8)}, DICE_CE, at_least=0, up_to=SMALL),
)  # fmt: skip
CUDA_GOALS = (
    Goal("time / floor", {"*": (1.0, 1.0)}, field("ratio"), heap="default"),
    Goal("time / MONAI DiceFocal", {"*": (1 / 5, 1 / 10)}, DICE_FOCAL, heap="default"),
    Goal("peak / logits", {"*": (1.1, 1.005)}, field("peak"), heap="default"),
    Goal("tensors kept", {"*": (0, 0)}, field("kept_tensors"), heap="default"),
    Goal("kernels / copy bandwidth", {"*": (0.6, 0.8)}, bandwidth, heap="default", larger_is_better=True),
)

GROUPS: dict[str, Callable[[Row, int], bool]] = {
    "up to 8 classes, float32": lambda r, c: 1 < c <= 8 and r["dtype"] == "float32" and r["labels"] != "soft",
    "bfloat16": lambda r, c: r["dtype"] == "bfloat16",
    "soft labels": lambda r, c: r["labels"] == "soft",
    "one channel (sigmoid)": lambda r, c: c == 1,
    "9 to 50 classes": lambda r, c: 8 < c <= 50,
    "more classes": lambda r, c: c > 50,
}


def judge(rows: list[Row]) -> list[Verdict]:
    """How the goals stand: the worst case of each within each group, for each engine."""
    lookup = Lookup(rows)
    own = [r for r in rows if r.get("kind") in ("ours", "sums") and r["mode"] == "eager" and r.get("ratio")]
    verdicts = []
    for engine in dict.fromkeys(r["engine"] for r in own):
        for group, belongs in GROUPS.items():
            for goal in CUDA_GOALS if own[0]["device"] == "cuda" else CPU_GOALS:
                sign = -1 if goal.larger_is_better else 1
                cases = []
                for row in own:
                    shape = shape_of(row["shape"])
                    if row["engine"] != engine or row["heap"] != goal.heap or not belongs(row, shape[1]):
                        continue
                    value = goal.value(row, lookup) if goal.at_least <= math.prod(shape) < goal.up_to else None
                    if value is not None and (row["kind"] == "sums") == goal.larger_is_better:
                        cases.append((sign * value, len(cases), row))
                if cases:
                    value, _, row = max(cases)
                    failing: dict[str, float] = {}
                    for v, _, r in sorted(cases):  # the worst of each comes last
                        if verdict(goal, engine, v) == "FAIL":
                            failing[r["contender"]] = sign * v
                    judged = verdict(goal, engine, value)
                    verdicts.append(Verdict(engine, group, goal.title, sign * value, judged, row, failing))
    return verdicts


def verdict(goal: Goal, engine: str, value: float) -> str:
    """`value` is negative where larger is better."""
    bounds = goal.bounds.get(engine, goal.bounds.get("*"))
    if bounds is None:
        return ""
    must, aim = (-b if goal.larger_is_better else b for b in bounds)
    return "aim" if value <= aim else "pass" if value <= must else "FAIL"


# ---------------------------------------------------------------------------------------------------- tables


def table(head: list[str], lines: list[list[str]], left: int = 1) -> str:
    """Columns as wide as they need to be; the first `left` are text, the others numbers."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]

    def render(line: list[str]) -> str:
        aligned = (t.ljust(w) if i < left else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(aligned).rstrip()

    return "\n".join([render(head), *(render(line) for line in lines)])


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 10 else f"{value:.0f}"


def by_cell(rows: list[Row]) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.get("ratio"):
            key = tuple(str(row[k]) for k in ("heap", "threads", "shape", "dtype", "labels"))
            found.setdefault(key, []).append(row)
    return found


def report(rows: list[Row]) -> str:
    """The tables: every cell in a line, one cell in full, the goals, and what could not be measured."""
    parts = [overview(rows), detail(rows), goals(rows)]
    missing = {(r["contender"], r.get("engine", ""), r["skipped"]) for r in rows if r.get("skipped")}
    lines = [f"  {name} ({engine}): {reason}" for name, engine, reason in sorted(missing)]
    parts.append("\n".join(["Not measured, and why:", *lines]) if lines else "")
    return "\n\n".join(part for part in parts if part)


def overview(rows: list[Row]) -> str:
    engines = list(dict.fromkeys(r["engine"] for r in rows if r.get("kind") == "ours"))
    peers = ("MONAI DiceCELoss", "MONAI DiceFocalLoss", "nnU-Net DC_and_CE_loss", "nnU-Net DC_and_BCE_loss")
    named = {p: p.replace("_and_", "+").removesuffix("_loss").replace("Loss", "") for p in peers}
    shown = [p for p in peers if any(r["contender"] == p and r.get("ratio") for r in rows)]
    lines = []
    for key, cell in by_cell(rows).items():
        line = [*key, number(next((r["time_ms"] for r in cell if r["kind"] == "floor"), None))]
        eager = [r for r in cell if r["mode"] == "eager"]
        for engine in engines:
            ratios = [r["ratio"] for r in eager if r["kind"] == "ours" and r["engine"] == engine]
            line.append(f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "-")
        line += [number(next((r["ratio"] for r in eager if r["contender"] == p), None)) for p in shown]
        lines.append(line)
    head = ["heap", "threads", "shape", "dtype", "labels", "floor, ms", *engines, *(named[p] for p in shown)]
    return f"Time / floor, our best to our worst loss\n\n{table(head, lines, left=5)}"


def detail(rows: list[Row]) -> str:
    cells = by_cell(rows)
    if not cells:
        return ""
    key = max(cells, key=lambda k: len(cells[k]))
    names = ("time_ms", "ratio", "ratio_iqr", "wall_ratio", "peak", "peak_rss", "kept", "kept_tensors", "gb_per_s")
    lines = []
    for r in sorted(cells[key], key=lambda r: r["ratio"]):
        mode = "" if r["mode"] == "eager" else f" ({r['mode']})"
        lines.append([r["contender"] + mode, r["engine"], *(number(r.get(n)) for n in names)])
    head = ["contender", "engine", "ms", "/ floor", "IQR", "wall", "peak", "rss", "kept", "tensors", "GB/s"]
    copy = f"a copy moves {cells[key][0]['copy_gb_per_s']:.0f} GB/s"
    return f"{' '.join(key)} in full; memory in logits sizes, {copy}\n\n{table(head, lines, left=2)}"


def goals(rows: list[Row]) -> str:
    found = judge(rows)
    parts = []
    for engine in dict.fromkeys(v.engine for v in found):
        own = [v for v in found if v.engine == engine]
        titles = list(dict.fromkeys(v.goal for v in own))
        lines = []
        for group in dict.fromkeys(v.group for v in own):
            cell = {v.goal: f"{v.value:.2f} {v.verdict}".rstrip() for v in own if v.group == group}
            lines.append([group, *(cell.get(t, "-") for t in titles)])
        parts.append(f"Goals, engine {engine}: the worst case of each\n\n{table([engine, *titles], lines)}")
    asked = [v for v in found if v.verdict]
    failed = [v for v in asked if v.verdict == "FAIL"]
    lines = [f"{len(asked) - len(failed)} of {len(asked)} goals met."]
    for v in failed:
        r = v.row
        where = f"{r['heap']} heap, {r['threads']} thread(s), {r['shape']} {r['dtype']} {r['labels']}"
        lines.append(f"FAIL  {v.engine}, {v.group}, {v.goal}: {v.value:.2f} with {r['contender']}, {where}")
        others = [f"{loss} {value:.2f}" for loss, value in v.failing.items() if loss != r["contender"]]
        if others:
            lines.append(f"      also {', '.join(reversed(others))}")
    missing = {f"{r['contender']} with {r['engine']}" for r in rows if r.get("kind") == "ours" and r.get("skipped")}
    if missing:
        lines.append(f"Somewhere not measured, so not judged there: {', '.join(sorted(missing))}")
    return "\n\n".join([*parts, "\n".join(lines)])


# ---------------------------------------------------------------------------------------------------- figure

SHOWN = {
    "F.cross_entropy": "PyTorch cross_entropy",
    "MONAI DiceCELoss": "MONAI DiceCE",
    "MONAI DiceFocalLoss": "MONAI DiceFocal",
    "MONAI TverskyLoss": "MONAI Tversky",
    "nnU-Net DC_and_CE_loss": "nnU-Net Dice + CE",
    "SMP FocalLoss": "SMP Focal",
    "kornia focal_loss": "kornia focal",
}
OURS, WORST, THEIRS, FLOOR = "#0072B2", "#9FC8E3", "#B3B3B3", "#4D4D4D"  # told apart by everyone, and in grey


def draw(rows: list[Row], path: Path) -> None:
    """Time and memory on one shape in two aligned panels: all our losses by engine, and the others."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    wanted = {"shape": MAIN, "heap": "warm", "threads": 1, "dtype": "float32", "labels": "blob-int64", "mode": "eager"}
    cell = [r for r in rows if r.get("ratio") and all(r[k] == v for k, v in wanted.items())]
    peers = [r for r in cell if r["contender"] in SHOWN]
    bars = [(SHOWN[r["contender"]], FLOOR if r["kind"] == "floor" else THEIRS, [r]) for r in peers]
    for engine in dict.fromkeys(r["engine"] for r in cell if r["kind"] == "ours"):
        group = [r for r in cell if r["engine"] == engine]
        bars.append((f"unifocal, {len(group)} losses, {engine}", OURS, group))
    bars.sort(key=lambda bar: -sum(r["ratio"] for r in bar[2]) / len(bar[2]))

    plt.rcParams.update({"font.size": 12, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(8, 0.36 * len(bars) + 0.5), sharey=True, layout="constrained")
    panels = (("ratio", "time / cross_entropy"), ("peak", "extra memory / logits"))
    for axis, (column, name) in zip(axes, panels, strict=True):
        longest = 0.0
        for y, (_, colour, group) in enumerate(bars):
            values = [1.0 if r["kind"] == "floor" and column == "ratio" else r[column] for r in group]
            low, high = min(values), max(values)
            longest = max(longest, high)
            axis.barh(y, high, height=0.66, color=WORST if colour == OURS else colour)
            axis.barh(y, low, height=0.66, color=colour)
            words = f"{low:.2f} to {high:.2f}" if high > 1.02 * low else f"{high:.2f}"
            place = {"textcoords": "offset points", "va": "center_baseline", "color": "#222222"}
            axis.annotate(words, (high, y), (5, 0), **place, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        axis.axvline(1, color="#222222", linewidth=1, linestyle=(0, (1, 2)))
        axis.set_title(name, loc="left")
        axis.set_xlim(0, 1.25 * longest)
        axis.set_xticks([])
        axis.spines[["bottom", "left"]].set_visible(False)
        axis.tick_params(left=False)
    axes[0].set_yticks(range(len(bars)), [name for name, *_ in bars])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def read(path: Path) -> list[Row]:
    """The rows of a CSV as they were measured."""

    def value(text: str) -> Any:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                pass
        return text

    with path.open(newline="", encoding="utf-8") as f:
        return [{k: value(v) for k, v in row.items() if v != ""} for row in csv.DictReader(f)]


if __name__ == "__main__":
    measured = read(Path(sys.argv[1]))
    print(report(measured))
    if len(sys.argv) > 2:
        draw(measured, Path(sys.argv[2]))

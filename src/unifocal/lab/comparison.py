"""The grid of runs, every loss on every fold: what is done is not done again, what fails does not stop the rest.

One output folder belongs to one data set and one set of folds, written to `folds.json`; asking for others there is
refused. Other training settings may share it: each run has a folder of its own, named by its identity. Table, summary
and picture always cover the runs asked for last, and no others.
"""

import gc
import hashlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unifocal.lab import pictures, report
from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import Pair, duplicates_in
from unifocal.lab.data.folds import hold_out, make_folds, make_strata, merge_groups
from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.errors import LabError
from unifocal.lab.limits import check_trainable
from unifocal.lab.outcome import Comparison, Outcome
from unifocal.lab.pipeline import Prepared, prepare
from unifocal.lab.progress import Watcher
from unifocal.lab.results import join_tables, read_table, write_table
from unifocal.lab.settings import LossChoice, Run, Settings, fingerprint
from unifocal.lab.storage import lock, read_json, write_json
from unifocal.lab.training import Row, Split, choose_device, execute, read_result


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first run."""

    data: Prepared
    foreground: list[float]  # share of each image
    pairs: list[Pair]  # near-duplicates
    splits: list[Split]
    record: dict[str, Any]  # what folds.json says


def compare(dataset: Dataset, settings: Settings, out: Path, watcher: Watcher | None = None) -> Comparison:
    """Run what is not yet run, then write table, summary and picture to `out`.

    Raises LabError before anything starts if the settings, the data or the folder do not allow it. KeyboardInterrupt
    passes through; the same call goes on later.
    """
    watcher = watcher or Watcher()
    out = Path(out).expanduser().resolve()
    check_trainable(dataset)
    check_losses(settings.losses, len(dataset.classes))
    check_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with lock(out), watcher:
        watcher.stage(f"reading {len(dataset.cases)} images of {dataset.name}")
        plan = make_plan(dataset, settings)
        record_folds(out / "folds.json", plan.record)
        for note in dataset.notes:
            watcher.stage(note)
        if dataset.splits or any(case.part for case in dataset.cases):
            watcher.stage("the set's own division is not used: folds are dealt anew over all cases")
        if plan.pairs:
            watcher.stage(report.near_duplicate_line(dataset, plan.pairs))
        outcomes = run_all(dataset, settings, plan, out / "runs", watcher)
        table = join_tables([read_table(o.folder / "cases.csv") for o in outcomes if o.failure is None])
        comparison = Comparison(dataset, settings, out, outcomes, plan.pairs, table)
        write_table(comparison.results_file, table)
        watcher.stage("drawing and writing")
        pictures.draw(comparison, plan.foreground)
        report.write_summary(comparison)
    return comparison


def check_losses(losses: Sequence[LossChoice], classes: int) -> None:
    """Build and try every loss, so that no mistake comes to light an hour later."""
    logits = torch.linspace(-1, 1, classes * 2 * 64).reshape(2, classes, 8, 8).requires_grad_()
    labels = (torch.arange(2 * 64) % classes).reshape(2, 8, 8)
    for loss in losses:
        module = loss.build()
        try:
            value = module(logits, labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise LabError(f"loss {loss.label!r} does not fit {classes} classes: {error}") from error
        if value.ndim != 0:
            raise LabError(
                f"loss {loss.label!r}: expected one number per batch; got a tensor of shape {tuple(value.shape)}. "
                "Leave reduction at 'mean'."
            )


def check_device(name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        raise LabError("expected a CUDA device; torch finds none here. Use --device cpu, or auto.")


def make_plan(dataset: Dataset, settings: Settings) -> Plan:
    """Read and prepare every case, find near-duplicates, and deal the cases into folds."""
    prepared: list[tuple[torch.Tensor, torch.Tensor]] = []
    foreground: list[float] = []

    def images() -> Iterator[Any]:
        for case in dataset.cases:
            image, mask = read_image(case), read_mask(case, dataset)
            prepared.append(prepare(image, mask, settings.size))
            foreground.append(float((mask > 0).mean()))
            yield image

    duplicates = duplicates_in(dataset, images())
    if not any(foreground):
        raise LabError(
            f"expected lesions; all {len(foreground)} masks of {dataset.root} are empty. Do they mark the lesion in "
            "their transparency only, or lie elsewhere?"
        )
    data = Prepared(*(torch.stack(parts) for parts in zip(*prepared, strict=True)))
    groups = merge_groups([case.group for case in dataset.cases], duplicates.groups)
    strata = make_strata(foreground, [case.label for case in dataset.cases])
    splits = []
    for test in make_folds(groups, strata, settings.folds, settings.seed):
        rest = sorted(set(range(len(groups))) - set(test))
        train, validation = hold_out(rest, groups, strata, settings.validation, settings.seed)
        splits.append(Split(tuple(train), tuple(validation), tuple(test)))
    names = [case.id for case in dataset.cases]
    record = {
        "data": data_fingerprint(dataset),
        "cases": len(names),
        "classes": list(dataset.classes),
        "seed": settings.seed,
        "validation": settings.validation,
        "groups": dict(zip(names, groups, strict=True)),
        "folds": [
            {part: [names[i] for i in getattr(split, part)] for part in ("train", "validation", "test")}
            for split in splits
        ],
        "near_duplicates": [
            {
                "cases": [names[pair.i], names[pair.j]],
                "similarity": round(pair.similarity, 4),
                "identical": pair.identical,
            }
            for pair in duplicates.pairs
        ],
    }
    return Plan(data, foreground, duplicates.pairs, splits, record)


def data_fingerprint(dataset: Dataset) -> str:
    """Hash of the classes and of every case's id and files: the same data anywhere, under any file names."""

    def describe(path: Path) -> list[object]:
        content = path.read_bytes()
        return [len(content), hashlib.sha256(content).hexdigest()]

    cases = [[case.id, describe(case.image), [describe(m) for m in case.masks]] for case in dataset.cases]
    # What a stored value means changes the truth as much as the files do; plain indices go without saying.
    values = {} if dataset.values is None else {str(v): c for v, c in sorted(dataset.values.items()) if v != c}
    return fingerprint([list(dataset.classes), cases, *([values] if values else [])])


def record_folds(path: Path, record: dict[str, Any]) -> None:
    """Write the folds, or check that those already there are the same."""
    if not path.exists():
        write_json(path, record)
        return
    before = read_json(path)
    if not isinstance(before, dict):
        raise LabError(f"expected the folds of an earlier comparison; {path} is none. Remove it, or use another --out.")
    parts = {
        "data": "the images, masks or classes",
        "seed": "the seed",
        "validation": "the share for validation",
        "groups": "the groups of cases",
        "folds": "the folds",
    }
    changed = [words for key, words in parts.items() if before.get(key) != record[key]]
    if changed:
        raise LabError(
            f"expected the same data and folds as before in {path.parent}; what differs: {', '.join(changed)}. "
            "One output folder holds one set of folds: use another --out."
        )


def run_all(dataset: Dataset, settings: Settings, plan: Plan, folder: Path, watcher: Watcher) -> list[Outcome]:
    """Every loss on every fold; folds outside, so that an early stop leaves whole folds to look at."""
    data = str(plan.record["data"])
    runs = [
        Run(loss, fold, settings, data, fingerprint(plan.record["folds"][fold]))
        for fold in range(settings.folds)
        for loss in settings.losses
    ]
    watcher.plan(len(runs), sum(is_finished(folder / run.name) for run in runs), settings.epochs)
    return [run_one(run, dataset, plan, folder / run.name, watcher) for run in runs]


def run_one(run: Run, dataset: Dataset, plan: Plan, folder: Path, watcher: Watcher) -> Outcome:
    """Execute a run unless it is finished; a failure is recorded in `failure.json`, and retried by the next call."""
    if is_finished(folder):
        return Outcome(run, folder, None)
    name = f"{run.loss.label}, fold {run.fold}"

    def tell(row: Row) -> None:
        watcher.epoch_ended(int(row["epoch"]), row["validation_loss"])

    watcher.run_started(name, epochs_done(folder))
    try:
        execute(run, dataset, plan.data, plan.splits[run.fold], folder, tell)
    except Exception as error:
        reason = explain(error)
        record = {
            "status": "failed",
            "reason": reason,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "traceback": traceback.format_exc(),
        }
        write_json(folder / "failure.json", record)
        watcher.run_ended(name, f"failed: {reason}")
        return Outcome(run, folder, reason)
    finally:
        gc.collect()
        if choose_device(run.settings.device) == "cuda":
            torch.cuda.empty_cache()
    (folder / "failure.json").unlink(missing_ok=True)
    table = read_table(folder / "cases.csv")
    watcher.run_ended(name, f"DSC {np.nanmean(table.loc[table['metric'] == 'DSC', 'value']):.3f}")
    return Outcome(run, folder, None)


def is_finished(folder: Path) -> bool:
    """Is all there that a report needs? A run that has lost a part of it is completed from its weights."""
    return read_result(folder) is not None and (folder / "cases.csv").is_file() and (folder / "predictions").is_dir()


def epochs_done(folder: Path) -> int:
    """Whole epochs that a run will not repeat."""
    if not (folder / "last.ckpt").exists() or not (folder / "history.csv").exists():
        return 0
    return len(pd.read_csv(folder / "history.csv"))


def explain(error: Exception) -> str:
    """One line that says why a run failed."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
    if memory:
        return f"out of memory ({first}); a smaller --batch-size, --width or --size needs less"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

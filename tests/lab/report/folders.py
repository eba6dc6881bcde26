"""Output folders of comparisons that never ran: written from a rule that gives the DSC of each loss, seed and case."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from unifocal.lab.data.cases import Case, Dataset, Facts
from unifocal.lab.experiment import DATASET
from unifocal.lab.results import write_table
from unifocal.lab.settings import make_settings

Rule = Callable[[int, int, int], Any]  # (loss, seed, case) to DSC; NaN undefined, None no row
SIZE = 32


def rule(spread: float = 0.15, step: float = 0.02, seed: int = 0) -> Rule:
    """Cases of their own difficulty, losses a step apart, a little luck."""
    draws = np.random.default_rng(seed).normal(size=(400, 400))

    def score(loss: int, seed: int, case: int) -> float:
        luck = draws[(7 * loss + 3 * seed) % 400, case % 400]
        return float(np.clip(0.6 + spread * draws[-1, case % 400] + step * loss + 0.04 * luck, 0, 1))

    return score


def write_folder(
    out: Path,
    losses: str = "dice,tversky:delta=0.7,focal",
    score: Rule | None = None,
    *,
    cases: int = 30,
    folds: int = 3,
    seeds: Sequence[int] = (0,),
    ends: Mapping[tuple[int, int], str] | None = None,
    names: Sequence[str] = (),
    groups: Sequence[int] | None = None,
    splits: Sequence[Mapping[str, list[int]]] | None = None,
    with_runs: bool = True,
    with_images: bool = False,
    dataset: str = "made up",
    place: str = ".",
    **settings: Any,
) -> Path:
    """Write a comparison of `losses` on one data set.

    Args:
        ends: (loss, fold) to `failed`, `waiting` or `running`, of all seeds; the others are finished.
        names: of the cases.
        groups: of the cases; each its own if not given.
        splits: case numbers of train, validation and test of each fold, dealt in turn if not given.
        with_runs: with the folders of the runs; without, `results.csv` alone.
        with_images: with pictures, masks and predictions.
        place: folder of the data set within `out`; several may be written, one after the other.
    """
    score, ends = score or rule(), ends or {}
    chosen = make_settings(losses=losses, folds=max(folds, 2), seeds=seeds, epochs=4, **settings)
    ids = list(names) or [f"case {n}" for n in range(cases)]
    groups = list(range(cases)) if groups is None else list(groups)
    folder = out / place
    data = _dataset(folder, dataset, ids, with_images)
    if splits is None:
        tests = [[n for n in range(cases) if n % folds == fold] for fold in range(folds)]
        rest = [[n for n in range(cases) if n % folds != fold] or test for fold, test in enumerate(tests)]
        splits = [
            {"train": others[1:], "validation": others[:1], "test": test}
            for others, test in zip(rest, tests, strict=True)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    record = {"prepared": "none", "dataset": DATASET.dump_python(data, mode="json")}
    (folder / "dataset.json").write_text(json.dumps(record))
    named = [{part: [ids[n] for n in numbers] for part, numbers in split.items()} for split in splits]
    whole = {
        "data": "d" * 64,
        "groups": dict(zip(ids, groups, strict=True)),
        "folds": named,
        "near_duplicates": [],
    }
    (folder / "folds.json").write_text(json.dumps(whole))
    planned, tables, lesions = [], [], []
    for seed in seeds:
        for fold, split in enumerate(splits):
            for number, loss in enumerate(chosen.losses):
                name = f"unet-{number}-fold{fold}-seed{seed}"
                key = {"dataset": dataset, "network": "unet", "loss": loss.label, "fold": fold, "seed": seed}
                entry = {"name": name, "title": f"{loss.label}, fold {fold}", "folder": place, "epochs": 4}
                planned.append(entry | {k: key[k] for k in ("network", "loss", "fold", "seed")})
                end = ends.get((number, fold), "finished")
                table = _table(key, [(ids[n], score(number, seed, n)) for n in split["test"]])
                sizes = pd.DataFrame(
                    [
                        (*key.values(), ids[n], "lesion", 50 + 9 * n, 50.0 + 9 * n, (n + number) % 3 / 2)
                        for n in split["test"]
                    ],
                    columns=[*key, "case", "class", "voxels", "size", "overlap"],
                )
                if end == "finished":
                    tables.append(table)
                    lesions.append(sizes)
                if with_runs:
                    _run(folder / "runs" / name, end, table, sizes, fold)
                    if with_images and end == "finished":
                        _predictions(folder / "runs" / name / "predictions", split["test"], ids, number)
    before = json.loads((out / "experiment.json").read_text()) if (out / "experiment.json").exists() else None
    places = {**(before["datasets"] if before else {}), dataset: place}
    record = {"datasets": places, "settings": chosen.model_dump(mode="json")}
    record["runs"] = [*(before["runs"] if before else []), *planned]
    (out / "experiment.json").write_text(json.dumps(record))
    if tables and not with_runs:
        write_table(out / "results.csv", pd.concat(tables))
        write_table(out / "lesions.csv", pd.concat(lesions))
    return out


def there(thing):
    """What is not None."""
    assert thing is not None
    return thing


def metrics(dsc: float) -> dict[str, float]:
    """All metrics, as if precision and recall were equal."""
    nan = math.nan
    return {
        "DSC": dsc,
        "IoU": dsc / (2 - dsc),
        "precision": dsc,
        "recall": dsc,
        "specificity": 0.99,
        "HD95": nan if dsc == 0 else 20 * (1 - dsc),
        "NSD": dsc,
        "volume error": dsc - 1,
        "lesion recall": float(dsc > 0.3),
        "lesion precision": 1.0,
        "lesion F1": float(dsc > 0.3),
        "false lesions": 0.0,
    }


def _table(key: Mapping[str, object], scores: Sequence[tuple[str, float | None]]) -> pd.DataFrame:
    rows = [
        (*key.values(), case, "lesion", metric, value)
        for case, dsc in scores
        if dsc is not None
        for metric, value in metrics(dsc).items()
    ]
    return pd.DataFrame(rows, columns=[*key, "case", "class", "metric", "value"])


def _dataset(folder: Path, name: str, ids: Sequence[str], with_images: bool) -> Dataset:
    root = folder / "data"
    cases, facts = [], []
    for n, case in enumerate(ids):
        image, mask = root / f"{n}.png", root / f"{n}-mask.png"
        truth = lesion(n)
        if with_images:
            root.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(n).integers(0, 90, truth.shape)
            Image.fromarray((noise + 120 * truth).astype(np.uint8)).save(image)
            Image.fromarray(255 * truth).save(mask)
        cases.append(Case(case, (image,), (mask,)))
        facts.append(Facts(truth.shape, (int((truth == 0).sum()), int(truth.sum()))))
    return Dataset(name, "plain", root, tuple(cases), ("background", "lesion"), facts=tuple(facts))


def lesion(number: int, shift: int = 0) -> np.ndarray:
    """A block whose size and place depend on the case."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    top, left, side = 3 + number % 5, 4 + number % 7 + shift, 6 + number % 9
    mask[top : top + side, left : left + side] = 1
    return mask


def _predictions(folder: Path, numbers: Sequence[int], ids: Sequence[str], loss: int) -> None:
    from unifocal.lab.preparation import write_prediction

    for n in numbers:
        write_prediction(folder, ids[n], lesion(n, shift=1 + loss), like=Path("any.png"))


def _run(folder: Path, end: str, table: pd.DataFrame, sizes: pd.DataFrame, fold: int) -> None:
    folder.mkdir(parents=True)
    epochs = 4 if end == "finished" else 2 if end in ("failed", "running") else 0
    history = [
        {
            "epoch": n,
            "train_loss": 1 / (n + 1),
            "validation_loss": 1.1 / (n + 1) + 0.01 * fold,
            "learning_rate": 0.01,
            "seconds": 1.5,
        }
        for n in range(epochs)
    ]
    if history:
        pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    if end == "failed":
        (folder / "failure.json").write_text(json.dumps({"reason": "RuntimeError: <b>it</b> broke & $fell$"}))
    if end == "finished":
        write_table(folder / "cases.csv", table)
        write_table(folder / "lesions.csv", sizes)
        result = {"status": "finished", "seconds": 6.0, "seconds_per_epoch": 1.5, "epochs": epochs, "best_epoch": 2}
        result |= {"rows": {"cases": len(table), "lesions": len(sizes)}}
        result |= {
            "parameters": 1234567,
            "gpu_bytes": None,
            "device": "cpu",
            "threads": 1,
            "versions": {"torch": "2.13.0"},
        }
        (folder / "result.json").write_text(json.dumps(result))

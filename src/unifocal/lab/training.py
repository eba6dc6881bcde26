"""One run, from its first epoch to its table of metrics: trained by Lightning, resumable after every epoch.

The run's folder holds `settings.json` (its identity), `history.csv` (one row per epoch), `best.ckpt` (weights at the
lowest validation loss), `last.ckpt` (everything needed to go on; removed at the end), `predictions/` (class indices
on the grid of the original image), `cases.csv` (metrics) and, as the very last file, `result.json`.
"""

import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.masks import read_mask
from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.metrics import measure
from unifocal.lab.network import build_network
from unifocal.lab.pipeline import Augmentation, Batches, Prepared
from unifocal.lab.results import write_table
from unifocal.lab.settings import Run
from unifocal.lab.storage import read_json, remove_parts, write_json, write_text, write_with

Row = dict[str, float]  # of the history: epoch, train_loss, validation_loss, learning_rate, seconds


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite: the run has failed, whatever it would do next."""


@dataclass(frozen=True)
class Split:
    """Positions of a fold's cases in the data set."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


class Segmentation(pl.LightningModule):
    """A network, a loss, and the papers' optimiser: SGD with Nesterov momentum 0.99, (1 - epoch / epochs)^0.9."""

    def __init__(self, network: nn.Module, loss: nn.Module, run: Run, steps: int, history_file: Path) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.run, self.steps, self.history_file = run, steps, history_file  # steps of an epoch
        self.history: list[Row] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss: Tensor = self.loss(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("validation_loss", self.loss(self(images), labels), batch_size=len(images))

    def on_train_epoch_start(self) -> None:
        self.started = time.perf_counter()
        self.learning_rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]

    def on_train_epoch_end(self) -> None:
        row: Row = {"epoch": self.current_epoch}
        for name in ("train_loss", "validation_loss"):
            row[name] = float(self.trainer.callback_metrics[name])
            if not np.isfinite(row[name]):
                raise NotFinite(f"{name} became {row[name]} in epoch {self.current_epoch}")
        row |= {"learning_rate": self.learning_rate, "seconds": time.perf_counter() - self.started}
        self.history.append(row)
        write_text(self.history_file, pd.DataFrame(self.history).to_csv(index=False))

    def configure_optimizers(self) -> Any:
        settings = self.run.settings
        optimiser = torch.optim.SGD(self.network.parameters(), lr=settings.learning_rate, momentum=0.99, nesterov=True)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=settings.epochs, power=0.9)
        # Once per epoch, but as the step that follows the last batch: Lightning's own epoch interval comes after the
        # checkpoint is written, so a resumed run would repeat the learning rate of the epoch before.
        every = {"scheduler": schedule, "interval": "step", "frequency": self.steps}
        return {"optimizer": optimiser, "lr_scheduler": every}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:  # the folder may have been moved since; the best score must survive that
                state["dirpath"] = str(self.history_file.parent.resolve())


class AfterEpoch(Callback):
    """Tells the progress display about each epoch."""

    def __init__(self, tell: Callable[[Row], None]) -> None:
        self.tell = tell

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row: Row = {"epoch": trainer.current_epoch}
        self.tell(row | {k: float(v) for k, v in trainer.callback_metrics.items()})


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_with(Path(path), lambda part: torch.save(checkpoint, part))


def execute(
    run: Run,
    dataset: Dataset,
    data: Prepared,
    split: Split,
    folder: Path,
    tell: Callable[[Row], None] = lambda row: None,
) -> None:
    """Train, predict and measure one run, going on from `last.ckpt` if there is one.

    Raises whatever went wrong; KeyboardInterrupt passes as such. In either case the same call goes on later from the
    last whole epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    write_json(folder / "settings.json", run.identity())
    device = choose_device(run.settings.device)
    result = read_result(folder)
    if result is None:
        history = train(run, data, split, len(dataset.classes), folder, device, tell)
        best = min(history, key=lambda row: row["validation_loss"])
        result = {
            "status": "finished",
            "seconds": round(sum(row["seconds"] for row in history), 3),
            "best_epoch": int(best["epoch"]),
            "validation_loss": best["validation_loss"],
            "device": device,
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
    network = build_network(len(dataset.classes), run.settings.width, seed=0)
    weights = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    rows = evaluate(run, dataset, data, split.test, network.to(device), folder / "predictions")
    write_table(folder / "cases.csv", pd.DataFrame(rows))
    write_json(folder / "result.json", result)
    (folder / "last.ckpt").unlink(missing_ok=True)


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json` of a run that is trained; None if it is not, or if the file or the weights are damaged."""
    try:
        result = read_json(folder / "result.json")
    except (FileNotFoundError, LabError):
        return None
    return result if isinstance(result, dict) and (folder / "best.ckpt").is_file() else None


def train(
    run: Run,
    data: Prepared,
    split: Split,
    classes: int,
    folder: Path,
    device: str,
    tell: Callable[[Row], None],
) -> list[Row]:
    """Leave the weights of the lowest validation loss in `best.ckpt`; return the history."""
    settings = run.settings
    seed = (settings.seed, run.fold)
    weights_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    augmentation = Augmentation(settings.size) if settings.augment else None
    batches = Batches(data, split.train, settings.batch_size, seed, lambda: int(module.current_epoch), augmentation)
    held_out = Batches(data, split.validation, settings.batch_size)
    module = Segmentation(
        build_network(classes, settings.width, weights_seed),
        run.loss.build(),
        run,
        len(batches),
        folder / "history.csv",
    )
    keep: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_epochs=settings.epochs,
            deterministic="warn" if device == "cuda" else False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # LightningEnvironment: within a cluster job too, this is one process with one device.
            plugins=[AtomicCheckpoints(), LightningEnvironment()],
            callbacks=[
                AfterEpoch(tell),
                # The order matters: the state of the first is part of what the second writes.
                ModelCheckpoint(filename="best", monitor="validation_loss", save_weights_only=True, **keep),
                ModelCheckpoint(filename="last", **keep),
            ],
        )
        _fit(trainer, module, batches, held_out, _checkpoint(folder))
    return module.history


def _checkpoint(folder: Path) -> Path | None:
    """Where to go on from; a checkpoint that cannot be read is removed, and the run starts again."""
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=False)
    except Exception:  # torch raises whatever its unpickler stumbles over
        path.unlink()
        return None
    return path


def _fit(
    trainer: pl.Trainer, module: Segmentation, batches: Batches, held_out: Batches, checkpoint: Path | None
) -> None:
    """`trainer.fit`, but an interrupt stays one: Lightning turns it into an exit and switches Ctrl-C off.

    SIGTERM, which Lightning turns into an exit with code 0, becomes `Terminated`.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, batches, held_out, ckpt_path=checkpoint)
    except SIGTERMException:
        raise Terminated from None
    except SystemExit as stop:
        if trainer.state.status == TrainerStatus.INTERRUPTED and isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
        raise


def evaluate(
    run: Run, dataset: Dataset, data: Prepared, cases: Sequence[int], network: nn.Module, folder: Path
) -> list[dict[str, object]]:
    """Rows of the tidy table for `cases`; the predictions are written to `folder`."""
    rows: list[dict[str, object]] = []
    for i, probabilities in _probabilities(network, data, cases, run.settings.batch_size):
        case = dataset.cases[i]
        truth = read_mask(case, dataset)
        prediction = to_grid(probabilities, truth.shape)
        write_with(prediction_file(folder, case.id), lambda part, mask=prediction: _write_mask(part, mask))  # type: ignore[misc]
        key = {"loss": run.loss.label, "fold": run.fold, "seed": run.settings.seed, "case": case.id}
        for index, name in enumerate(dataset.classes[1:], start=1):
            for metric, value in measure(prediction, truth, index).items():
                rows.append({**key, "class": name, "metric": metric, "value": value})
    return rows


def _probabilities(
    network: nn.Module, data: Prepared, cases: Sequence[int], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """(case, softmax probabilities (C, size, size) on the CPU)."""
    device = next(network.parameters()).device
    network.eval()
    for start in range(0, len(cases), batch_size):
        indices = list(cases[start : start + batch_size])
        images = data.images[indices].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            yield from zip(indices, network(images.to(device)).softmax(1).cpu(), strict=True)


def to_grid(probabilities: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Class indices (H, W): probabilities (C, h, w) upsampled bilinearly, then the most probable class."""
    full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear")[0]
    return full.argmax(0).numpy().astype(np.uint8)


def prediction_file(folder: Path, case: str) -> Path:
    """Where the prediction of `case` lies; no id can leave the folder, and no two share a file."""
    return folder / f"{quote(case, safe=' ()+,=@')}.png"


def read_prediction(folder: Path, case: str) -> NDArray[np.uint8]:
    with Image.open(prediction_file(folder, case)) as image:
        return np.asarray(image)


def _write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """A PNG whose pixel values are the class indices; its palette makes them visible."""
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([0, 0, 0, 255, 255, 255, 230, 80, 60, 70, 130, 220, 250, 200, 60])
    image.save(path, format="PNG")


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; auto takes the GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def versions() -> Mapping[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("unifocal", "torch", "lightning", "monai", "numpy")}


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's notes and warnings stay inside: nothing in them is for the user of the lab."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

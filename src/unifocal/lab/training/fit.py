"""Lightning's trainer as the lab wants it, and interrupts that stay interrupts."""

import logging
import signal
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException

from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.progress import tell_start
from unifocal.lab.settings import Settings
from unifocal.lab.training.checkpoints import LAST, NEXT, PREVIOUS, Checkpoints, move_up
from unifocal.lab.training.history import Row, is_over, write_history
from unifocal.lab.training.segmentation import LOGGERS, Segmentation, hush

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: dict[str, Precision] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
WEIGHTS = "weights.ckpt"
Tell = Callable[[int, float], object]  # epoch from 0, validation loss


class AfterEpoch(Callback):
    """Tells the progress display about each epoch, before its checkpoint is written."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tell(trainer.current_epoch, float(trainer.callback_metrics["validation_loss"]))


def fit(
    module: Segmentation,
    batches: Iterable[Any],
    held_out: Iterable[Any],
    settings: Settings,
    folder: Path,
    device: str,
    tell: Tell,
) -> int:
    """Train to the last epoch, from a checkpoint if there is one; leaves the weights to use in `weights.ckpt`.

    Tells by `progress.tell_start`, and returns, after how many epochs it began.
    """
    checkpoint, history = usable_checkpoint(folder)
    tell_start(len(history))
    if is_over(history, settings.epochs, settings.early_stop):
        return len(history)
    begun = len(history)
    _cut_history(folder / "history.csv", history)
    keep: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    checkpoints = Checkpoints()
    module.before_history = checkpoints.wait
    monitor, mode = ("validation_loss", "min") if settings.keep == "best" else ("epoch", "max")
    deterministic: bool | Literal["warn"] = settings.deterministic or ("warn" if device == "cuda" else False)
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=settings.devices,
            strategy=_strategy(settings),
            max_epochs=settings.epochs,
            precision=PRECISIONS[settings.precision],
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.clip_gradient,
            deterministic=deterministic,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=_logger(folder) if settings.tensorboard else False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # LightningEnvironment: within a cluster job too, a run is one process, or those that it starts itself.
            plugins=[checkpoints, LightningEnvironment()],
            callbacks=[
                AfterEpoch(tell),
                # The order matters: the state of the first is part of what the second writes.
                ModelCheckpoint(filename="weights", monitor=monitor, mode=mode, save_weights_only=True, **keep),
                ModelCheckpoint(filename="last", **keep),
            ],
        )
        _fit(trainer, module, batches, held_out, checkpoint)
    return begun


def check_whole(path: Path) -> None:
    """Raises LabError for a file of torch that has changed since it was written; torch itself does not look."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise LabError(f"expected a file of torch; {path} is damaged ({error}).") from None
    if damaged is not None:
        raise LabError(f"expected a whole file of torch; {path} is damaged, in {damaged}.")


def usable_checkpoint(folder: Path) -> tuple[Path | None, list[Row]]:
    """Where to go on from, and the history up to there, which `history.csv` may be ahead of.

    A damaged checkpoint is moved aside, to `damaged.ckpt`; then it is the one before, or the run starts again. One that
    a kill has left as the next becomes the last.

    OSError and MemoryError pass: they say nothing of the file, and another time it may be read.
    """
    for path in (folder / NEXT, folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            check_whole(path)
            history: list[Row] = torch.load(path, map_location="cpu", weights_only=False)["history"]
        except (OSError, MemoryError):
            raise
        except Exception:  # torch raises whatever its unpickler stumbles over
            path.replace(path.with_name("damaged.ckpt"))
            continue
        if path.name == NEXT:
            move_up(folder)
            return folder / LAST, history
        return path, history
    return None, []


def _cut_history(path: Path, history: Sequence[Row]) -> None:
    """Epochs that will be done again are not shown as done."""
    if history:
        write_history(path, history)
    else:
        path.unlink(missing_ok=True)


def _fit(
    trainer: pl.Trainer, module: Segmentation, batches: Iterable[Any], held_out: Iterable[Any], checkpoint: Path | None
) -> None:
    """`trainer.fit`, but an interrupt stays one: Lightning turns it into an exit and switches Ctrl-C off.

    SIGTERM, which Lightning turns into an exit with code 0, becomes `Terminated`.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, batches, held_out, ckpt_path=checkpoint, weights_only=False)
    except SIGTERMException:
        raise Terminated from None
    except SystemExit as stop:
        if trainer.state.status == TrainerStatus.INTERRUPTED and isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
        raise


def _strategy(settings: Settings) -> str:
    if settings.devices == 1:
        return "auto"
    # nnU-Net's weights leave out the coarsest scale, whose head then gets no gradient.
    return "ddp_spawn_find_unused_parameters_true" if settings.deep_supervision == "nnunet" else "ddp_spawn"


def _logger(folder: Path) -> Any:
    """Curves for TensorBoard, in the run's folder; a run that goes on writes to the same place."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's notes and warnings stay inside: nothing in them is for the user of the lab."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            hush()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

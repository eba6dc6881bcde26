"""A network, a loss, an optimiser and its schedule, as Lightning wants them."""

import logging
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, PolynomialLR, ReduceLROnPlateau

import unifocal
from unifocal.lab.settings import Settings
from unifocal.lab.training.history import Judge, Row, is_over, unmoved, write_history
from unifocal.lab.training.overlap import Overlap


def shared_loss(loss: Tensor, images: int) -> Tensor:
    """Of several processes (DDP), whose gradients are averaged: so that each image of the batch counts the same."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return loss
    whole = torch.tensor(float(images), device=loss.device)
    torch.distributed.all_reduce(whole)
    return loss * (images * torch.distributed.get_world_size() / whole)


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite: the run has failed, whatever it would do next."""


class Segmentation(pl.LightningModule):
    """Trains `network` by `loss`, and writes `history_file` after every epoch.

    The loss of an epoch is the mean over its images. It is added up on the device and read once at the end: to read it
    at every step would make a GPU wait for the CPU.
    """

    def __init__(self, network: nn.Module, loss: nn.Module, settings: Settings, history_file: Path) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.settings, self.history_file = settings, history_file
        self.history: list[Row] = []
        self.sums: dict[str, Mean] = {"train_loss": Mean(), "validation_loss": Mean()}
        self.overlap = Overlap()
        self.judge: Judge = unmoved
        self.schedule_state: dict[str, Any] | None = None
        self.before_history: Callable[[], object] = _nothing
        if settings.deep_supervision == "none":
            self.training_loss = loss
        else:
            self.training_loss = unifocal.DeepSupervision(loss, settings.deep_supervision)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process of the same run, which has been told nothing yet."""
        hush()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def epoch(self) -> int:
        """The current epoch, for whoever draws its batches."""
        return int(self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss: Tensor = self.training_loss(self.network(images), labels)
        self.sums["train_loss"].add(loss, len(images))
        return shared_loss(loss, len(images))

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self.network(images)
        self.sums["validation_loss"].add(self.loss(logits, labels), len(images))
        self.overlap.add(logits, labels)

    def on_train_epoch_start(self) -> None:
        self.started = time.perf_counter()
        self.learning_rate = self.optimizer.param_groups[0]["lr"]

    def on_validation_epoch_end(self) -> None:
        self.log("validation_loss", self.sums["validation_loss"].value)

    def on_train_epoch_end(self) -> None:
        # The epoch before must be safe before this one is told of: else two could be lost.
        self.before_history()
        row: Row = {"epoch": self.current_epoch}
        for name, mean in self.sums.items():
            row[name] = float(mean.value)
            mean.clear()
            if not math.isfinite(row[name]):
                raise NotFinite(f"{name} became {row[name]} in epoch {self.current_epoch}")
        row["validation_dice"] = float(self.overlap.value)
        self.overlap.clear()
        row |= {"learning_rate": self.learning_rate, "seconds": time.perf_counter() - self.started}
        for name in ("train_loss", "validation_dice", "learning_rate"):
            self.log(name, row[name])
        self.history.append(row)
        if self.trainer.is_global_zero:
            write_history(self.history_file, self.history)
        self.judge(row)
        # Stepped here and not by Lightning, which does so after it has written the checkpoint: a run that goes on
        # from there would repeat the learning rate of the epoch before.
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(row["validation_loss"])
        else:
            self.schedule.step()
        if is_over(self.history, self.settings.epochs, self.settings.early_stop):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimizer = make_optimiser(self.network, self.settings)
        self.schedule = make_schedule(self.optimizer, self.settings)
        if self.schedule_state is not None:
            self.schedule.load_state_dict(self.schedule_state)
        return self.optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history
        checkpoint["schedule"] = self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning calls this before it asks for the optimiser."""
        self.history = checkpoint["history"]
        self.schedule_state = checkpoint["schedule"]
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:  # the folder may have been moved since; the best score must survive that
                state["dirpath"] = str(self.history_file.parent.resolve())


def _nothing() -> None:
    """Nothing to wait for."""


LOGGERS = ("lightning.pytorch", "lightning.fabric")


def hush() -> None:
    """Let Lightning keep its notes and warnings to itself, in this process."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


class Mean:
    """The mean of numbers that stay on their device, weighted; over all processes of a run."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, value: Tensor, weight: int) -> None:
        weighted = value.detach().double() * weight
        self.total = weighted if self.total is None else self.total + weighted
        self.count += weight

    @property
    def value(self) -> Tensor:
        if self.total is None:
            return torch.tensor(math.nan)
        both = torch.stack([self.total, self.total.new_tensor(float(self.count))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(both)
        return both[0] / both[1]


Schedule = ConstantLR | CosineAnnealingLR | PolynomialLR | ReduceLROnPlateau


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimiser:
        case "sgd":
            return torch.optim.SGD(
                network.parameters(),
                lr=rate,
                momentum=settings.momentum,
                nesterov=settings.momentum > 0,
                weight_decay=decay,
            )
        case "adam":
            return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)


def make_schedule(optimiser: torch.optim.Optimizer, settings: Settings) -> Schedule:
    """The learning rate by epoch: (1 - epoch / epochs)^0.9, a cosine, a tenth where validation stands still, or one."""
    match settings.schedule:
        case "poly":
            return PolynomialLR(optimiser, total_iters=settings.epochs, power=0.9)
        case "cosine":
            return CosineAnnealingLR(optimiser, T_max=settings.epochs)
        case "plateau":
            return ReduceLROnPlateau(optimiser, factor=0.1, patience=settings.patience)
        case "constant":
            return ConstantLR(optimiser, factor=1.0)

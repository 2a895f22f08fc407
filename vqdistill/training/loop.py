"""What all trainings share: early stopping, the best epoch kept, checkpoints, resume, progress."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path
from typing import Protocol

from torch import Tensor

from vqdistill import progress
from vqdistill.errors import InputError, TrainingError
from vqdistill.files import read_tensors, write_tensors
from vqdistill.settings import Training

log = logging.getLogger(__name__)

Progress = Callable[[Tensor], None]


class Trainer(Protocol):
    """What is trained: it knows how to take an epoch, how to validate, and what its state is.

    Where it has `batches` with a length, the time left is known within its first epoch.
    """

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """One pass over the training data; means over the epoch, 'loss' among them."""
        ...

    def validate(self) -> dict[str, float]:
        """Means over the fixed validation data, 'loss' among them (lower is better)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What is kept of the best epoch."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A finished training: the best epoch's weights and how it went."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int
    best_validation: float
    stopped_by: str  # 'patience' or 'epoch limit'


def as_tuple(batch: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A batch of one tensor, or of several that belong together, as several."""
    return batch if isinstance(batch, tuple) else (batch,)


def fit(trainer: Trainer, training: Training, checkpoint: Path, key: str) -> Fitted:
    """Train until the stopping rule ends it, and return the weights of the best epoch.

    Training ends at `max_epochs`, or after `patience` epochs without a gain of `min_improvement` in
    the validation loss. After each epoch the whole state goes to `checkpoint`. If that file is
    there already and was made under the same `key` (a digest of settings, seed, data and code),
    training goes on from it, to the bit as if it had not been interrupted. The file stays; its
    owner removes it when the results are written. Raises TrainingError where a loss is not finite.
    """
    history, best = _resume(trainer, checkpoint, key)
    with progress.loop("epoch", training.max_epochs, done=len(history)) as epochs:
        while not (stopped_by := _stopped_by(history, training)):
            epoch = len(history) + 1
            history.append(_one_epoch(trainer, epoch, training, history))
            if best_epoch(history, training.min_improvement) == epoch:
                best = {name: tensor.detach().clone() for name, tensor in trainer.weights().items()}
            tensors = {f"state/{name}": tensor for name, tensor in trainer.state().items()}
            tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
            write_tensors(checkpoint, tensors, {"key": key, "history": history})
            epochs.advance(loss=history[-1]["train_loss"])
    epoch = best_epoch(history, training.min_improvement)
    log.info("stopped by %s after epoch %d; best epoch %d", stopped_by, len(history), epoch)
    return Fitted(best, history, epoch, history[epoch - 1]["validation_loss"], stopped_by)


def best_epoch(history: list[dict[str, float]], min_improvement: float) -> int:
    """The last epoch (from 1) that gained `min_improvement` over the best before it."""
    best, lowest = 1, math.inf
    for row in history:
        loss = row["validation_loss"]
        if math.isinf(lowest) or (loss < lowest and loss <= lowest - min_improvement):
            best, lowest = int(row["epoch"]), loss
    return best


def _stopped_by(history: list[dict[str, float]], training: Training) -> str:
    waited = len(history) - best_epoch(history, training.min_improvement)
    if history and waited >= training.patience:
        return "patience"
    return "epoch limit" if len(history) >= training.max_epochs else ""


def _resume(trainer: Trainer, checkpoint: Path, key: str) -> tuple[list, dict[str, Tensor]]:
    """History and best weights of an interrupted training, its state put back; or a fresh start."""
    if not checkpoint.exists():
        return [], {}
    try:
        tensors, metadata = read_tensors(checkpoint)
    except InputError as error:
        log.warning("%s; training starts anew", error)
        return [], {}
    if metadata.get("key") != key:
        log.info("%s belongs to other settings, data or code; training starts anew", checkpoint)
        return [], {}
    parts: dict[str, dict[str, Tensor]] = {"state": {}, "best": {}}
    for name, tensor in tensors.items():
        part, _, name = name.partition("/")
        parts[part][name] = tensor
    trainer.load_state(parts["state"])
    log.info("going on from %s after epoch %d", checkpoint, len(metadata["history"]))
    return metadata["history"], parts["best"]


def _one_epoch(trainer: Trainer, epoch: int, training: Training, history: list) -> dict[str, float]:
    started, losses = time.perf_counter(), []
    with progress.loop("batch", length_hint(getattr(trainer, "batches", None), 0)) as batches:

        def step(loss: Tensor) -> None:
            losses.append(loss)
            batches.advance(loss=loss)

        means = {"train": trainer.train_epoch(step), "validation": trainer.validate()}
    row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)}
    row |= {f"{part}_{name}": v for part, values in means.items() for name, v in values.items()}
    for name in ("train_loss", "validation_loss"):
        if not math.isfinite(row[name]):
            best = f", the best {best_epoch(history, training.min_improvement)}" if history else ""
            raise TrainingError(
                f"{name.replace('_', ' ')} is {row[name]} in epoch {epoch}{_first_bad(losses)};"
                f" the last good epoch is {epoch - 1 or 'none'}{best};"
                " lower the learning rate or look at the data"
            )
    log.info(
        "epoch %d/%d  train %.4f  validation %.4f  %.1f s",
        epoch, training.max_epochs, row["train_loss"], row["validation_loss"], row["seconds"],
    )  # fmt: skip
    return row


def _first_bad(losses: list[Tensor]) -> str:
    """Where the loss of a batch was not finite for the first time, if it was."""
    bad = [n for n, loss in enumerate(losses, 1) if not loss.isfinite()]
    return f", step {bad[0]} of {len(losses)}" if bad else ""

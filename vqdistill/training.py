"""What all trainings share: early stopping, the best epoch kept, checkpoints, resume, progress."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from tqdm import tqdm

from vqdistill.errors import InputError, TrainingError
from vqdistill.files import read_tensors, write_tensors
from vqdistill.replay import Replayed

log = logging.getLogger(__name__)

Progress = Callable[[Tensor], None]


class Learner(Protocol):
    """What is trained: it knows how to take an epoch, how to validate, and what its state is."""

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
class Stopping:
    """When training ends: at most `max_epochs`, or after `patience` epochs without a gain of
    `min_improvement` in the validation loss."""

    max_epochs: int
    patience: int
    min_improvement: float


@dataclass(frozen=True)
class Fitted:
    """A finished training: the best epoch's weights and how it went."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int
    best_validation: float
    stopped_by: str  # 'patience' or 'epoch limit'


def fit(learner: Learner, stopping: Stopping, checkpoint: Path, key: str) -> Fitted:
    """Train until `stopping` says so, and return the weights of the best epoch.

    After each epoch the whole state goes to `checkpoint`. If that file is there already and was
    made under the same `key` (a digest of settings, seed, data and code), training goes on from
    it, to the bit as if it had not been interrupted. The file stays; its owner removes it when
    the results are written. Raises TrainingError where a loss is not finite.
    """
    history, best = _resume(learner, checkpoint, key)
    while not (stopped_by := _stopped_by(history, stopping)):
        epoch = len(history) + 1
        history.append(_one_epoch(learner, epoch, stopping, history))
        if best_epoch(history, stopping.min_improvement) == epoch:
            best = {name: tensor.detach().clone() for name, tensor in learner.weights().items()}
        tensors = {f"state/{name}": tensor for name, tensor in learner.state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
        write_tensors(checkpoint, tensors, {"key": key, "history": history})
    epoch = best_epoch(history, stopping.min_improvement)
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


def _stopped_by(history: list[dict[str, float]], stopping: Stopping) -> str:
    waited = len(history) - best_epoch(history, stopping.min_improvement)
    if history and waited >= stopping.patience:
        return "patience"
    return "epoch limit" if len(history) >= stopping.max_epochs else ""


def _resume(learner: Learner, checkpoint: Path, key: str) -> tuple[list, dict[str, Tensor]]:
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
    learner.load_state(
        {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state/")}
    )
    history = metadata["history"]
    log.info("going on from %s after epoch %d", checkpoint, len(history))
    return history, {name[5:]: value for name, value in tensors.items() if name.startswith("best/")}


def _one_epoch(learner: Learner, epoch: int, stopping: Stopping, history: list) -> dict[str, float]:
    started = time.perf_counter()
    with _bar(f"epoch {epoch}/{stopping.max_epochs}") as bar:
        training = learner.train_epoch(bar.step)
    validation = learner.validate()
    row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)}
    row |= {f"train_{name}": value for name, value in training.items()}
    row |= {f"validation_{name}": value for name, value in validation.items()}
    for name in ("train_loss", "validation_loss"):
        if not math.isfinite(row[name]):
            best = f", the best {best_epoch(history, stopping.min_improvement)}" if history else ""
            raise TrainingError(
                f"{name.replace('_', ' ')} is {row[name]} in epoch {epoch}{bar.first_bad()};"
                f" the last good epoch is {epoch - 1 or 'none'}{best};"
                " lower the learning rate or look at the data"
            )
    log.info(
        "epoch %d/%d  train %.4f  validation %.4f  %.1f s",
        epoch, stopping.max_epochs, row["train_loss"], row["validation_loss"], row["seconds"],
    )  # fmt: skip
    return row


class _bar:
    """A progress bar with the current loss where a person watches, and nothing in a log."""

    def __init__(self, title: str) -> None:
        self.bar = tqdm(desc=title, unit="batch", leave=False, disable=not sys.stderr.isatty())
        self.losses: list[Tensor] = []

    def __enter__(self) -> "_bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, loss: Tensor) -> None:
        self.losses.append(loss)
        if not self.bar.disable and self.bar.update():
            self.bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    def first_bad(self) -> str:
        """Where the loss of a batch was not finite for the first time, if it was."""
        bad = [n for n, loss in enumerate(self.losses, 1) if not loss.isfinite()]
        return f", step {bad[0]} of {len(self.losses)}" if bad else ""


class GradientLearner:
    """Any model with a `loss`, trained by Adam.

    `batches(generator)` and `validation_batches()` yield what `model.loss` takes, a tensor or a
    tuple of tensors. The generator draws the order, the noise and whatever the loss samples; in
    validation a generator that is seeded alike each time stands in for it.

    On a GPU a training step is recorded and replayed, for which a loss must neither wait for the
    device nor copy from the host; a model whose loss does says `recordable = False`.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[torch.Generator], Iterable],
        validation_batches: Callable[[], Iterable],
        generator: torch.Generator,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.model, self.generator = model, generator
        self.batches, self.validation_batches = batches, validation_batches
        self.optimiser = Adam(model, learning_rate, weight_decay)
        recordable = getattr(model, "recordable", True)
        self.step = Replayed(self._step, generator) if recordable else self._step
        self.names: list[str] = []  # of what a training step gives

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        self.model.train()
        means = _Means()
        for batch in map(_as_tuple, self.batches(self.generator)):
            values = self.step(*batch)
            means.add(len(batch[0]), values)
            progress(values[0])
        if hasattr(self.model, "after_epoch"):
            self.model.after_epoch(self.generator)
        return means.named(self.names)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        means, names = _Means(), []
        generator = torch.Generator(device=self.generator.device).manual_seed(0)
        for batch in map(_as_tuple, self.validation_batches()):
            _, names, values = self._loss(batch, generator)
            means.add(len(batch[0]), values)
        return means.named(names)

    def _step(self, *batch: Tensor) -> Tensor:
        """Move the parameters by the gradient of one batch; the loss and its parts [1 + parts]."""
        self.optimiser.zero_grad()
        loss, self.names, values = self._loss(batch, self.generator)
        loss.backward()
        self.optimiser.step()
        return values

    def _loss(
        self, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, list[str], Tensor]:
        """The loss; the names of it and its parts, and their values, float64 [1 + parts]."""
        loss, parts = self.model.loss(*batch, generator=generator)
        return loss, ["loss", *parts], torch.stack([loss.detach(), *parts.values()]).double()

    def state(self) -> dict[str, Tensor]:
        state = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        state |= {f"adam/{name}": tensor for name, tensor in self.optimiser.state().items()}
        return state | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        parts = {"model": {}, "adam": {}, "generator": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.optimiser.load_state(parts["adam"])
        self.generator.set_state(tensors["generator"])

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


class Adam:
    """Adam (Kingma and Ba 2015) with L2 weight decay: torch's fused kernel, its state by name.

    torch.optim.Adam would give the same numbers, but its class imports torch's compiler, which
    takes longer than many a training here.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.parameters = dict(model.named_parameters())
        self.means = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = {
            name: p.new_zeros((), dtype=torch.float32) for name, p in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        adam(
            [self.parameters[name] for name in names],
            [self.parameters[name].grad for name in names],
            [self.means[name] for name in names],
            [self.squares[name] for name in names],
            [],
            [self.steps[name] for name in names],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        slots = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {
            f"{slot}/{name}": tensor for slot, of in slots.items() for name, tensor in of.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])


def _as_tuple(batch: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


class _Means:
    """Means over batches of different sizes, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.n, self.sums = 0, 0.0

    def add(self, n: int, values: Tensor) -> None:
        self.n += n
        self.sums = self.sums + n * values

    def named(self, names: list[str]) -> dict[str, float]:
        return dict(zip(names, (self.sums / self.n).tolist(), strict=True))


def in_batches(size: int, *tensors: Tensor) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """Validation batches: tensors of one length, cut alike into tuples of `size` rows."""

    def batches() -> Iterator[tuple[Tensor, ...]]:
        yield from zip(*(tensor.split(size) for tensor in tensors), strict=True)

    return batches

"""Training by expectation maximisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqdistill.data import Batches
from vqdistill.training.cuda_graph import GraphedStep
from vqdistill.training.loop import Progress, as_tuple


class EMTrainer:
    """Stochastic EM with an M-step about every `em_every` batches; full EM with one an epoch.

    The E-step `model.count(*batch, counts)` adds the expected statistics of a batch, of images x
    or of x and what belongs to each, to `counts`, in place, and gives the log-likelihood of each.
    The M-step `update(model, counts, n)` moves the parameters and clears
    the counts; it is the one after n others. An epoch is cut evenly into the nearest whole number
    of M-steps, at least one, so that every M-step sees about as many images and none is left over
    at the end: 391 batches and 50 a step make 8 steps of 48 or 49 batches. Losses are
    −mean log p(x), in nats per image.

    On a GPU the E-step is recorded, unless the model says `recordable = False`.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        validation: Tensor | tuple[Tensor, ...],
        generator: torch.Generator,
        counts: Any,
        update: Callable[[nn.Module, Any, int], None],
        em_every: int,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, as_tuple(validation)
        self.generator, self.counts, self.update = generator, counts, update
        self.steps = max(1, round(len(batches) / em_every))  # M-steps an epoch
        self.done = 0  # M-steps, of all epochs
        recordable = getattr(model, "recordable", True)
        self.count = GraphedStep(self._count, generator) if recordable else self._count

    @torch.no_grad()
    def train_epoch(self, progress: Progress) -> dict[str, float]:
        n_images, total = 0, 0.0
        for index, batch in enumerate(map(as_tuple, self.batches(self.generator))):
            log_prob = self.count(*batch)
            progress(-log_prob.mean())
            n_images, total = n_images + len(log_prob), total - log_prob.sum()
            if self.steps_after(index + 1) > self.steps_after(index):
                self.update(self.model, self.counts, self.done)
                self.done += 1
        return {"loss": float(total) / n_images}

    def _count(self, *batch: Tensor) -> Tensor:
        """The E-step of a batch; its log-likelihoods [B]."""
        return self.model.count(*batch, self.counts)

    def steps_after(self, n_batches: int) -> int:
        """The number of M-steps that are due after so many batches of the epoch."""
        return n_batches * self.steps // len(self.batches)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        return {"loss": -self._log_prob(*self.validation).mean().item()}

    def _log_prob(self, x: Tensor) -> Tensor:
        """What is maximised, of the validation data [n]."""
        return self.model.log_prob(x)

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from between two epochs: counts are empty there."""
        own = {"generator": self.generator.get_state(), "done": torch.tensor(self.done)}
        return self.weights() | own

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        self.generator.set_state(tensors.pop("generator").cpu())
        self.done = int(tensors.pop("done"))
        self.model.load_state_dict(tensors)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

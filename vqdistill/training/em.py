"""Training by expectation maximisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqdistill.data import Batches
from vqdistill.training.cuda_graph import GraphedStep
from vqdistill.training.loop import Progress


class EMTrainer:
    """Stochastic EM with an M-step about every `em_every` batches; full EM with one an epoch.

    The E-step `model.count(x, counts)` adds the expected statistics of images to `counts`, in
    place, and gives log p(x). The M-step `update(model, counts)` moves the parameters and clears
    the counts. An epoch is cut evenly into the nearest whole number of M-steps, at least one, so
    that every M-step sees about as many images and none is left over at the end: 391 batches and
    50 a step make 8 steps of 48 or 49 batches. Losses are −mean log p(x), in nats per image.

    On a GPU the E-step is recorded, unless the model says `recordable = False`.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        validation_x: Tensor,
        generator: torch.Generator,
        counts: Any,
        update: Callable[[nn.Module, Any], None],
        em_every: int,
    ) -> None:
        self.model, self.batches, self.validation_x = model, batches, validation_x
        self.generator, self.counts, self.update = generator, counts, update
        self.steps = max(1, round(len(batches) / em_every))  # M-steps an epoch
        recordable = getattr(model, "recordable", True)
        self.count = GraphedStep(self._count, generator) if recordable else self._count

    @torch.no_grad()
    def train_epoch(self, progress: Progress) -> dict[str, float]:
        n_images, total = 0, 0.0
        for index, x in enumerate(self.batches(self.generator)):
            log_prob = self.count(x)
            progress(-log_prob / len(x))
            n_images, total = n_images + len(x), total - log_prob
            if self.steps_after(index + 1) > self.steps_after(index):
                self.update(self.model, self.counts)
        return {"loss": float(total) / n_images}

    def _count(self, x: Tensor) -> Tensor:
        """The E-step of images x [B, D]; Σ log p(x)."""
        return self.model.count(x, self.counts).sum()

    def steps_after(self, n_batches: int) -> int:
        """The number of M-steps that are due after so many batches of the epoch."""
        return n_batches * self.steps // len(self.batches)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        return {"loss": -self.model.log_prob(self.validation_x).mean().item()}

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from between two epochs: counts are empty there."""
        return self.weights() | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        self.generator.set_state(tensors.pop("generator").cpu())
        self.model.load_state_dict(tensors)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

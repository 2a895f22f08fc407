"""EiNet (Peharz et al. 2020), the baseline that is trained as a circuit, by stochastic EM.

The E-step is one upward and one downward pass: the posterior probability that a sum unit uses its
input is the derivative of log p(x) for the weight's logarithm. The M-step moves the parameters a
step η towards the expected statistics, θ ← (1 − η) θ + η θ_new, for Gaussians in their moments
E[x] and E[x²] (Peharz et al. 2020, Sect. 3.5, after Sato 1999). With η = 1 on all images it is
exact EM, and the training likelihood never decreases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqdistill.circuits.base import MAX_STD, MIN_STD, Circuit
from vqdistill.circuits.einet import EiNet, ExpectedCounts, GaussianLeaves
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.data import Batches
from vqdistill.errors import InputError
from vqdistill.training.cuda_graph import GraphedStep

PREFIXES_ARE_MODELS = False

MIN_WEIGHT = 1e-16  # keeps every sum unit positive, as in the EiNet authors' code


@dataclass(frozen=True)
class Settings:
    """Structure and training of an EiNet."""

    size: int = 30  # K, sum units a region and input distributions a leaf region
    pixels_per_step: int = 4  # side of the region graph's pieces
    em_step_size: float = 0.5  # η, in (0, 1]
    em_every: int = 50  # batches to an M-step, about

    def __post_init__(self) -> None:
        if self.size < 1 or self.em_every < 1 or not 0 < self.em_step_size <= 1:
            raise InputError(
                f"EiNet settings {self}: expected size and em_every of at least 1"
                " and em_step_size in (0, 1]"
            )


def build(image_shape: tuple[int, int], settings: Settings) -> EiNet:
    """An untrained EiNet over images (height, width), from torch's global random state."""
    return EiNet(poon_domingos(image_shape, settings.pixels_per_step), settings.size)


def circuit(model: EiNet, n_components: int, generator: torch.Generator) -> Circuit:
    """The model itself: it is a circuit already. The other arguments are ignored."""
    return model


def trainer(
    model: EiNet,
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> "EMTrainer":
    """What trains `model` on `batches` and validates it on validation_x [n, D]."""
    return EMTrainer(model, batches, validation_x, generator, settings)


class EMTrainer:
    """Stochastic EM with an M-step about every `em_every` batches.

    An epoch is cut evenly into the nearest whole number of M-steps, at least one, so that every
    M-step sees about as many images and none is left over at the end: 391 batches and 50 a step
    make 8 steps of 48 or 49 batches. Losses are −mean log p(x), in nats per image.
    """

    def __init__(
        self,
        model: EiNet,
        batches: Batches,
        validation_x: Tensor,
        generator: torch.Generator,
        settings: Settings,
    ) -> None:
        self.model, self.batches, self.validation_x = model, batches, validation_x
        self.generator, self.step_size = generator, settings.em_step_size
        self.steps = max(1, round(len(batches) / settings.em_every))  # M-steps an epoch
        self.counts = zero_counts(model)
        self.count = GraphedStep(self._count, generator)

    def train_epoch(self, progress: Callable[[Tensor], None]) -> dict[str, float]:
        n_images, total = 0, 0.0
        for index, x in enumerate(self.batches(self.generator)):
            log_prob = self.count(x)
            progress(-log_prob / len(x))
            n_images, total = n_images + len(x), total - log_prob
            if self._step_after(index + 1) > self._step_after(index):
                update(self.model, self.counts, self.step_size)
                self.counts.clear()
        return {"loss": float(total) / n_images}

    def _count(self, x: Tensor) -> Tensor:
        """The E-step of images x [B, D], which adds to the counts; Σ log p(x)."""
        return self.model.count(x, self.counts).sum()

    def _step_after(self, n_batches: int) -> int:
        """The number of M-steps that are due after so many batches of the epoch."""
        return n_batches * self.steps // len(self.batches)

    def validate(self) -> dict[str, float]:
        return {"loss": float(-self.model.log_prob(self.validation_x).mean())}

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from between two epochs: counts are empty there."""
        return self.weights() | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        self.generator.set_state(tensors.pop("generator").cpu())
        self.model.load_state_dict(tensors)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def zero_counts(model: EiNet) -> ExpectedCounts:
    """The expected statistics of no image at all."""
    means = model.leaves.means
    return ExpectedCounts(
        weights=[torch.zeros_like(layer.weights.flatten(2)) for layer in model.layers],
        mixing=[torch.zeros_like(layer.mixing) for layer in model.layers],
        occupancy=torch.zeros_like(means[..., 0], dtype=torch.float64),
        moments=torch.zeros_like(torch.stack([means, means], 2), dtype=torch.float64),
    )


def update(model: EiNet, counts: ExpectedCounts, step_size: float) -> None:
    """The M-step: moves all parameters of `model` towards `counts`. The counts are used up.

    Units that no image uses stay as they are. Standard deviations are kept in
    [MIN_STD, MAX_STD], which for η = 1 still maximises the expected log-likelihood.
    """
    for layer, weights, mixing in zip(model.layers, counts.weights, counts.mixing, strict=True):
        _update_weights(layer.weights.flatten(2), weights.mul_(layer.weights.flatten(2)), step_size)
        _update_weights(layer.mixing.transpose(1, 2), mixing.transpose(1, 2), step_size)
    _update_gaussians(model.leaves, counts, step_size)


def _update_weights(weights: Tensor, counts: Tensor, step_size: float) -> None:
    """Moves weights [..., n], in place, towards the counts normalised over the last dimension."""
    total = counts.sum(-1, keepdim=True)
    target = torch.where(total > 0, counts / total, weights)
    weights.lerp_(target, step_size).clamp_(min=MIN_WEIGHT)
    weights.div_(weights.sum(-1, keepdim=True))


def _update_gaussians(leaves: GaussianLeaves, counts: ExpectedCounts, step_size: float) -> None:
    means, stds = leaves.means.double(), leaves.stds.double()
    moments = torch.stack([means.square() + stds.square(), means], 2)  # [leaves, K, 2, pixels]
    occupancy = counts.occupancy[..., None, None]
    moments = moments.lerp(
        torch.where(occupancy > 0, counts.moments / occupancy, moments), step_size
    )
    second, first = moments.unbind(2)
    variance = (second - first.square()).clamp(min=0.0)
    leaves.means.copy_(first)
    leaves.stds.copy_(variance.sqrt().clamp(MIN_STD, MAX_STD))

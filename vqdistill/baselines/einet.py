"""EiNet (Peharz et al. 2020), the baseline that is trained as a circuit, by stochastic EM.

The E-step is one upward and one downward pass: the posterior probability that a sum unit uses its
input is the derivative of log p(x) for the weight's logarithm. The M-step moves the parameters a
step η towards the expected statistics, θ ← (1 − η) θ + η θ_new, for Gaussians in their moments
E[x] and E[x²] (Peharz et al. 2020, Sect. 3.5, after Sato 1999). With η = 1 on all images it is
exact EM, and the training likelihood never decreases.
"""

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.circuits.einet import EiNet, ExpectedCounts
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.data import Batches
from vqdistill.training import m_step
from vqdistill.training.em import EMTrainer

Settings = settings.EiNet

MIN_WEIGHT = 1e-16  # keeps every sum unit positive, as in the EiNet authors' code


def build(image_shape: tuple[int, int], settings: Settings) -> EiNet:
    """An untrained EiNet over images (height, width), from torch's global random state."""
    return EiNet(poon_domingos(image_shape, settings.pixels_per_step), settings.size)


def trainer(
    model: EiNet,
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> EMTrainer:
    """Stochastic EM on `batches`, validated on validation_x [n, D]."""

    def move(model: EiNet, counts: ExpectedCounts, _: int) -> None:
        update(model, counts, settings.em_step_size)

    counts, every = zero_counts(model), settings.em_every
    return EMTrainer(model, batches, validation_x, generator, counts, move, every)


def zero_counts(model: EiNet) -> ExpectedCounts:
    """The expected statistics of no image at all."""
    return ExpectedCounts(
        weights=[torch.zeros_like(layer.weights.flatten(2)) for layer in model.layers],
        mixing=[torch.zeros_like(layer.mixing) for layer in model.layers],
        leaves=model.leaves.zero_counts(),
    )


def update(model: EiNet, counts: ExpectedCounts, step_size: float) -> None:
    """The M-step: moves all parameters of `model` towards `counts`, and clears them.

    Units that no image uses stay as they are. Standard deviations are kept in
    [MIN_STD, MAX_STD], which for η = 1 still maximises the expected log-likelihood.
    """
    for layer, weights, mixing in zip(model.layers, counts.weights, counts.mixing, strict=True):
        expected = weights.mul_(layer.weights.flatten(2))
        m_step.move_weights(layer.weights.flatten(2), expected, step_size, MIN_WEIGHT)
        expected = mixing.transpose(1, 2)
        m_step.move_weights(layer.mixing.transpose(1, 2), expected, step_size, MIN_WEIGHT)
    m_step.move_gaussians(model.leaves, counts.leaves, step_size)
    counts.clear()

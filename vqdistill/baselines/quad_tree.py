"""Quad-tree circuit, learned from images by stochastic EM.

The E-step is one upward and one downward pass, the M-step moves all parameters towards the expected
statistics of one batch (vqdistill/training/m_step.py). Its step size falls geometrically: large
steps find where the units belong, small ones average over many batches.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from vqdistill import settings
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.circuits.quad_tree import ExpectedCounts, QuadTree
from vqdistill.data import Batches
from vqdistill.training import m_step
from vqdistill.training.em import EMTrainer

Settings = settings.QuadTree

MIN_WEIGHT = 1e-9  # the product of four of them is a number of float32
SEEN_FIRST = 2000  # images on whose pixels the Gaussians start
ITERATIONS = 10  # of k-means
LONELY_STD = 0.05  # of a Gaussian that starts on less than two pixels


def build(image_shape: tuple[int, int], settings: Settings) -> QuadTree:
    """An untrained quad-tree over images (height, width), from torch's global random state."""
    return QuadTree(image_shape, settings.size)


def trainer(
    model: QuadTree,
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
    kind: type[EMTrainer] = EMTrainer,
) -> EMTrainer:
    """Stochastic EM with an M-step a batch, from Gaussians that start by k-means of the pixels."""
    begin(model, batches.some(SEEN_FIRST, generator), generator)
    move = mover(settings, len(batches))
    return kind(model, batches, validation_x, generator, model.zero_counts(), move, 1)


def mover(settings: Settings, n_batches: int) -> Callable[[QuadTree, ExpectedCounts, int], None]:
    """The M-step after n others, with so many batches an epoch."""

    def move(model: QuadTree, counts: ExpectedCounts, n: int) -> None:
        update(model, counts, step_size(settings, n / n_batches))

    return move


def step_size(settings: Settings, epochs: float) -> float:
    """η after so many epochs: from the first to the last, by the same factor each time."""
    share = min(1.0, epochs / settings.falling_epochs)
    return settings.first_step * (settings.last_step / settings.first_step) ** share


def update(model: QuadTree, counts: ExpectedCounts, step_size: float) -> None:
    """The M-step: moves all parameters of `model` towards `counts`, and clears them."""
    for weights, expected in zip(model.sum_weights(), counts.weights, strict=True):
        m_step.move_weights(weights, expected.mul_(weights), step_size, MIN_WEIGHT)
    m_step.move_gaussians(model.leaves, counts.leaves, step_size)
    counts.clear()


def begin(model: QuadTree, x: Tensor, generator: torch.Generator) -> None:
    """Puts each pixel's Gaussians on its values in images x [n, D], clustered by k-means.

    In one dimension clusters are intervals, so that sums over them are differences of cumulated
    sums of the sorted values.
    """
    values = x.T[model.leaves.pixels[:, 0]].sort(1).values.double()  # [D, n]
    first = torch.randint(len(x), (model.size,), generator=generator, device=generator.device)
    means = values[:, first.to(x.device)].sort(1).values
    sums = [pad(powers.cumsum(1), (1, 0)) for powers in (values, values.square())]
    for _ in range(ITERATIONS):
        between = torch.searchsorted(values, (means[:, 1:] + means[:, :-1]) / 2)
        ends = pad(pad(between, (1, 0)), (0, 1), value=len(x))  # [D, K + 1]
        n = ends.diff(dim=1)
        moments = [part.gather(1, ends).diff(dim=1) / n.clamp(min=1) for part in sums]
        means = torch.where(n > 0, moments[0], means)
    stds = (moments[1] - means.square()).clamp(min=0.0).sqrt().clamp(MIN_STD, MAX_STD)
    model.leaves.means.copy_(means[..., None])
    model.leaves.stds.copy_(torch.where(n > 1, stds, LONELY_STD)[..., None])

"""Deep distillation: a quad-tree circuit that is learned from samples of a VQ-VAE and its prior.

The student q maximises E log q(x, c) over samples c ~ U(C), z ~ p(z|c), x ~ p(x|z) of its teacher,
which minimises KL(p(x, c) ‖ q(x, c)) up to what the circuit can express. No image is read: where
the Gaussians start, when training stops and which levels know the class are all decided by samples.
To compare it with, there is a flat mixture that learns from the same samples, and what a circuit
learns from images after the samples, or in their place.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqdistill import progress
from vqdistill.baselines import gmm
from vqdistill.baselines.quad_tree import mover
from vqdistill.circuits.quad_tree import QuadTree, quad_tree
from vqdistill.data import Batches
from vqdistill.distillation import dmrs
from vqdistill.models.vqvae import VQVAE
from vqdistill.settings import QuadTreeOfAnySize, Student
from vqdistill.training.em import EMTrainer

log = logging.getLogger(__name__)

SAMPLED_AT_ONCE = 1000
HELD_OUT = 2000  # samples that the student is validated on


@dataclass(frozen=True)
class TeacherSamples:
    """Latents of a teacher, decoded: batches of images whose pixels are drawn anew in each pass."""

    codes: Tensor  # [n, H, W]
    means: Tensor  # [n, D] of p(x | z)
    stds: Tensor  # [n, D]
    classes: Tensor | None  # [n], under which z was drawn; None where batches are to have none
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.means) // self.batch_size)

    def __call__(self, generator: torch.Generator) -> Iterator:
        """(x [B, D], c [B]), or x, until all latents were seen once, in a new order."""
        order = torch.randperm(len(self.means), generator=generator, device=generator.device)
        for index in order.to(self.means.device).split(self.batch_size):
            x = self.images(index, generator)
            yield x if self.classes is None else (x, self.classes[index])

    def some(self, n: int, generator: torch.Generator) -> Tensor:
        """Images x [n, D] of the first n latents, which are as good as any."""
        n = min(n, len(self.means))
        return self.images(torch.arange(n, device=self.means.device), generator)

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Images x [B, D] of the latents with these numbers [B]."""
        noise = torch.randn(len(index), self.means.shape[1], generator=generator,
                            device=generator.device)  # fmt: skip
        return torch.addcmul(self.means[index], self.stds[index], noise.to(self.means.device))


@torch.no_grad()
def sampled(
    vqvae: VQVAE,
    prior,
    n: int,
    batch_size: int,
    generator: torch.Generator,
    pixel_noise: bool = True,
) -> TeacherSamples:
    """n independent samples of a teacher; without pixel noise all σ are as of a grey level."""
    parts = []
    for start in range(0, n, SAMPLED_AT_ONCE):
        codes, classes = dmrs.sample(prior, min(SAMPLED_AT_ONCE, n - start), generator)
        means, log_stds = vqvae.decode(codes)
        parts.append((codes, means, log_stds.exp(), classes))
    codes, means, stds, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    if not pixel_noise:
        stds.fill_(1 / (vqvae.levels * math.sqrt(12)))
    return TeacherSamples(codes, means, stds, classes, batch_size)


class JointTrainer(EMTrainer):
    """EM for p(x, c): batches and validation data are images with their classes."""

    def _count(self, x: Tensor, classes: Tensor) -> Tensor:
        return self.model.count_joint(x, classes, self.counts)

    def _log_prob(self, x: Tensor, classes: Tensor) -> Tensor:
        return self.model.joint_log_prob(x).gather(1, classes[:, None]).squeeze(1)


def trainer(
    model: QuadTree,
    batches: TeacherSamples | Batches,
    validation: tuple[Tensor, Tensor],
    generator: torch.Generator,
    settings: QuadTreeOfAnySize,
) -> JointTrainer:
    """Stochastic EM of log q(x, c) with an M-step a batch, from where the model is."""
    move = mover(settings, len(batches))
    return JointTrainer(model, batches, validation, generator, model.zero_counts(), move, 1)


def flat_trainer(
    samples: TeacherSamples,
    validation: tuple[Tensor, Tensor],
    generator: torch.Generator,
    settings: Student,
) -> EMTrainer:
    """EM of a flat mixture on the same samples, without their classes."""
    own = gmm.Settings(size=settings.size)
    model = gmm.GaussianMixture(own.size, samples.means.shape[1]).to(samples.means.device)
    return gmm.trainer(model, replace(samples, classes=None), validation[0], generator, own)


def tried_class_levels(
    image_shape: tuple[int, int], learner: Callable[[Student], JointTrainer], settings: Student
) -> tuple[int, dict[str, float]]:
    """The number of levels that know the class, and by number what it was chosen by.

    Each number is tried for an epoch, in which the steps fall to the last one. Chosen is the one
    of least description length (BIC) −log q(x, c) + P log n / 2n, in nats per sample, with the
    loss of held-out samples, P parameters and n samples to learn from.
    """
    tried, most = {}, len(quad_tree(*image_shape)[1])
    numbers = range(min(1, most), most + 1)
    for levels in progress.track(numbers, "class levels", [1] * len(numbers)):
        wanted = {"class_levels": levels, "falling_epochs": 1}
        trainer = learner(settings.model_copy(update=wanted))
        trainer.train_epoch(lambda loss: None)
        loss, n = trainer.validate()["loss"], settings.samples
        tried[levels] = loss + trainer.model.n_parameters * math.log(n) / (2 * n)
        log.info(
            "%d levels know the class: %.2f nats, %.2f with parameters", levels, loss, tried[levels]
        )
    return min(tried, key=tried.get), {str(levels): length for levels, length in tried.items()}

"""A plain mixture of factorised Gaussians, fitted by EM: what any distilled mixture must beat.

EM for Gaussian mixtures (Dempster, Laird and Rubin 1977): an epoch is one E-step over all training
images, with responsibilities r_bn = p(n | x_b), and one M-step,

    w_n = Σ_b r_bn / B,   μ_n = Σ_b r_bn x_b / Σ_b r_bn,   σ_n² = Σ_b r_bn x_b² / Σ_b r_bn − μ_n²,

with the deviations kept in [1e-3, 1].
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqdistill.circuits.base import MAX_STD, MIN_STD, Circuit
from vqdistill.circuits.components import StoredComponents
from vqdistill.circuits.evidence import evidence
from vqdistill.circuits.mixture import StreamedMixture
from vqdistill.data import Batches
from vqdistill.errors import InputError

PREFIXES_ARE_MODELS = False

FIRST_STD = 0.3  # of all components before the first M-step
FEWEST = 1e-6  # images; a component that is responsible for less stays as it is
ROWS = 2000  # images at once, at least where there are so many


@dataclass(frozen=True)
class Settings:
    """size: the number of components N."""

    size: int = 64


class GaussianMixture(nn.Module, StreamedMixture):
    """A mixture [N, D] whose weights, means and deviations are learned; a circuit as it stands."""

    def __init__(self, n_components: int, n_variables: int) -> None:
        nn.Module.__init__(self)
        if n_components < 1:
            raise InputError(f"gmm: size is {n_components}, expected 1 or more")
        self.n_variables = n_variables
        weights = torch.full((n_components,), float(n_components), dtype=torch.float64)
        self.register_buffer("log_weights", -weights.log())
        self.register_buffer("means", torch.rand(n_components, n_variables))
        self.register_buffer("log_stds", torch.full((n_components, n_variables), FIRST_STD).log())

    @property
    def components(self) -> StoredComponents:
        return StoredComponents(self.means, self.log_stds)

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Put the means on images [N, D]."""
        self.means.copy_(images)

    @torch.no_grad()
    def update(self, counts: Tensor, sums: Tensor, squares: Tensor) -> None:
        """The M-step, from Σ r [N], Σ r x and Σ r x² [N, D], all float64."""
        used = (counts > FEWEST)[:, None]
        weight = counts.clamp(min=FEWEST)[:, None]
        means = sums / weight
        stds = (squares / weight - means.square()).clamp(min=MIN_STD**2).sqrt().clamp(max=MAX_STD)
        self.means.copy_(torch.where(used, means, self.means.double()))
        self.log_stds.copy_(torch.where(used, stds.log(), self.log_stds.double()))
        self.log_weights.copy_((counts / counts.sum()).log())


class EMTrainer:
    """Full EM: an epoch is one pass of the E-step over the training images, and one M-step."""

    def __init__(
        self,
        model: GaussianMixture,
        batches: Batches,
        validation_x: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.model, self.batches = model, batches
        self.validation_x, self.generator = validation_x, generator

    @torch.no_grad()
    def train_epoch(self, progress: Callable[[Tensor], None]) -> dict[str, float]:
        n, d = self.model.means.shape
        totals = self.model.means.new_zeros(n, 2 * d + 1, dtype=torch.float64)
        log_likelihood, n_images = 0.0, 0
        for x in joined(self.batches(self.generator), ROWS):
            log_prob, responsibilities = expectation(self.model, x)
            x = x.double()
            features = torch.cat([torch.ones_like(x[:, :1]), x, x.square()], 1)
            totals += responsibilities.T @ features
            log_likelihood = log_likelihood + log_prob.sum()
            n_images += len(x)
            progress(-log_prob.mean())
        self.model.update(totals[:, 0], totals[:, 1 : d + 1], totals[:, d + 1 :])
        return {"loss": (-log_likelihood / n_images).item()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        parts = [self.model.log_prob(x) for x in self.validation_x.split(ROWS)]
        return {"loss": -torch.cat(parts).mean().item()}

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict() | {"generator": self.generator.get_state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])
        self.model.load_state_dict({k: v for k, v in tensors.items() if k != "generator"})

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def joined(batches: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
    """The images of several batches at once, `rows` or more: the E-step prepares all components
    for them, and what an epoch finds does not depend on its batches."""
    held: list[Tensor] = []
    for x in batches:
        held.append(x)
        if sum(map(len, held)) >= rows:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)


def expectation(model: GaussianMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) [B] and the responsibilities p(n | x) [B, N], sparse: without negligible ones."""
    log_prob = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    images, numbers, terms = [], [], []
    for part in model.posterior(evidence(x, model.components)):
        images.append(part.block.rows.start + part.pairs.images)
        numbers.append(part.chunk.start + part.pairs.numbers)
        terms.append(part.terms)
        log_prob[part.block.rows] = part.after
    index = torch.stack([torch.cat(images), torch.cat(numbers)])
    values = torch.exp(torch.cat(terms) - log_prob[index[0]])
    shape = (len(x), len(model.means))
    return log_prob, torch.sparse_coo_tensor(index, values, shape, check_invariants=False)


def build(image_shape: tuple[int, int], settings: Settings) -> GaussianMixture:
    """An untrained mixture over images (height, width)."""
    return GaussianMixture(settings.size, image_shape[0] * image_shape[1])


def trainer(
    model: GaussianMixture,
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> EMTrainer:
    """EM that starts with its means on randomly chosen training images."""
    n = len(batches.images)
    if settings.size > n:
        raise InputError(f"gmm: size is {settings.size}, expected at most the {n} training images")
    order = torch.randperm(n, generator=generator, device=generator.device)
    first = batches.images[order[: settings.size].to(batches.images.device)]
    model.start_from((first + 0.5) / batches.levels)
    return EMTrainer(model, batches, validation_x, generator)


def circuit(model: GaussianMixture, n_components: int, generator: torch.Generator) -> Circuit:
    """The model itself: it is a circuit already. The other arguments are ignored."""
    return model

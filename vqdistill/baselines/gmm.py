"""A plain mixture of factorised Gaussians, fitted by EM: what any distilled mixture must beat.

EM for Gaussian mixtures (Dempster, Laird and Rubin 1977): an epoch is one E-step over all training
images, with responsibilities r_bn = p(n | x_b), and one M-step,

    w_n = Σ_b r_bn / B,   μ_n = Σ_b r_bn x_b / Σ_b r_bn,   σ_n² = Σ_b r_bn x_b² / Σ_b r_bn − μ_n²,

with the deviations kept in [1e-3, 1].
"""

import torch
from torch import Tensor, nn

from vqdistill import settings
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.circuits.mixture import StoredComponents, StreamedMixture, uniform_log_weights
from vqdistill.data import Batches
from vqdistill.errors import InputError
from vqdistill.training.em import EMTrainer

Settings = settings.GaussianMixture

FIRST_STD = 0.3  # of all components before the first M-step
FEWEST = 1e-6  # images; a component that is responsible for less stays as it is


def build(image_shape: tuple[int, int], settings: Settings) -> "GaussianMixture":
    """An untrained mixture over images (height, width)."""
    return GaussianMixture(settings.size, image_shape[0] * image_shape[1])


def trainer(
    model: "GaussianMixture",
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> EMTrainer:
    """Full EM that starts with its means on randomly chosen training images.

    Raises InputError where these are fewer than the components.
    """
    first = batches.some(settings.size, generator)
    if len(first) < settings.size:
        raise InputError(
            f"gmm: size is {settings.size}, expected at most the {len(first)} training images"
        )
    model.means.copy_(first)
    counts = zero_counts(model)
    return EMTrainer(model, batches, validation_x, generator, counts, update, len(batches))


class GaussianMixture(nn.Module, StreamedMixture):
    """A mixture [N, D] whose weights, means and deviations are learned; a circuit as it stands."""

    recordable = False  # its E-step looks at the components that matter, a number that varies

    def __init__(self, n_components: int, n_variables: int) -> None:
        nn.Module.__init__(self)
        self.n_variables = n_variables
        self.register_buffer("log_weights", uniform_log_weights(n_components))
        self.register_buffer("means", torch.rand(n_components, n_variables))
        self.register_buffer("log_stds", torch.full((n_components, n_variables), FIRST_STD).log())

    @property
    def components(self) -> StoredComponents:
        return StoredComponents(self.means, self.log_stds)

    def count(self, x: Tensor, counts: Tensor) -> Tensor:
        """The E-step: adds Σ_b r_bn [1, x, x²] of images [B, D] to `counts`; log p(x) [B]."""
        log_prob, responsibilities = self.responsibilities(x)
        x = x.double()
        counts += responsibilities.T @ torch.cat([torch.ones_like(x[:, :1]), x, x.square()], 1)
        return log_prob


def zero_counts(model: GaussianMixture) -> Tensor:
    """The expected statistics [N, 1 + 2D] of no image at all, float64."""
    n, d = model.means.shape
    return model.means.new_zeros(n, 1 + 2 * d, dtype=torch.float64)


def update(model: GaussianMixture, counts: Tensor, _: int = 0) -> None:
    """The M-step, from Σ_b r_bn [1, x, x²] [N, 1 + 2D]; clears the counts."""
    d = model.n_variables
    used = counts[:, :1] > FEWEST
    weight = counts[:, :1].clamp(min=FEWEST)
    means = counts[:, 1 : d + 1] / weight
    variances = counts[:, d + 1 :] / weight - means.square()
    stds = variances.clamp(min=MIN_STD**2).sqrt().clamp(max=MAX_STD)
    model.means.copy_(torch.where(used, means, model.means.double()))
    model.log_stds.copy_(torch.where(used, stds.log(), model.log_stds.double()))
    model.log_weights.copy_((counts[:, 0] / counts[:, 0].sum()).log())
    counts.zero_()

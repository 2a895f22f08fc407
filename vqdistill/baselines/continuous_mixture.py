"""Continuous mixture (Correia et al. 2023, https://arxiv.org/abs/2209.10584), a baseline.

p(x) = E_{z ~ N(0, I)} [Π_s N(x_s; μ_s(z), σ_s(z))] with a convolutional decoder, trained on a
mixture of P randomised quasi-Monte-Carlo points and compiled to a mixture of N of them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqdistill import settings
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD, log_density, log_likelihoods
from vqdistill.circuits.mixture import Mixture, uniform_log_weights
from vqdistill.models.architectures import check_cm_channels, decoder_sides
from vqdistill.models.residual import Residual
from vqdistill.randomness import drawn_seed
from vqdistill.training.gradient import GradientTrainer, in_batches

Settings = settings.ContinuousMixture

VALIDATION_ENTRIES = 2**25  # of the matrix [B, P] of log-likelihoods


def build(image_shape: tuple[int, int], settings: Settings) -> "ContinuousMixture":
    """An untrained model. Raises InputError if the settings don't fit the images."""
    return ContinuousMixture(image_shape, settings)


def trainer(
    model: "ContinuousMixture",
    batches: Callable,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> GradientTrainer:
    """Adam on the model's loss; validation takes as many images at once as memory allows."""
    rows = max(1, VALIDATION_ENTRIES // settings.points)
    return GradientTrainer(
        model,
        batches,
        in_batches(rows, validation_x),
        generator,
        settings.learning_rate,
        settings.weight_decay,
    )


@torch.no_grad()
def circuit(model: "ContinuousMixture", n_components: int, generator: torch.Generator) -> Mixture:
    """The uniform mixture of N decoded points; its first n components are the model of size n."""
    was_training = model.training
    model.eval()
    latents = normal_points(n_components, model.settings.latent_dimension, generator)
    latents = latents.to(next(model.parameters()))
    parts = [model.decode(chunk) for chunk in latents.split(model.settings.chunk)]
    model.train(was_training)
    means, log_stds = (torch.cat(part) for part in zip(*parts, strict=True))
    return Mixture(uniform_log_weights(n_components, means.device), means, log_stds)


class ContinuousMixture(nn.Module):
    """The decoder of a continuous mixture of grey images [h, w].

    [P, latent, 1, 1] -> [P, 2, h, w] by transposed convolutions, with batch norm, a leaky ReLU and
    a residual block after each but the last.
    """

    recordable = False  # its points come from the host

    def __init__(self, image_shape: tuple[int, int], settings: Settings):
        super().__init__()
        check_cm_channels(image_shape, settings.channels)
        self.settings = settings
        self.tf32 = ("convolutions",) if settings.tf32 else ()  # not in the likelihoods
        modules: list[nn.Module] = []
        n_in = settings.latent_dimension
        for n_out in settings.channels[:-1]:
            modules += [
                nn.ConvTranspose2d(n_in, n_out, 3, 2, bias=False),
                nn.BatchNorm2d(n_out),
                nn.LeakyReLU(inplace=True),
                Residual(n_out, nn.LeakyReLU),
            ]
            n_in = n_out
        cropped = [decoder_sides(image_shape)[-1] - side for side in image_shape]
        padding = [(pixels + 1) // 2 for pixels in cropped]  # on both sides
        missing = [pixels % 2 for pixels in cropped]
        modules.append(nn.ConvTranspose2d(n_in, 2, 3, 2, padding, missing, bias=False))
        self.decoder = nn.Sequential(*modules)
        self.to(memory_format=torch.channels_last)

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, each [P, D], of p(x | z) at latents [P, latent]."""
        maps = self.decoder(latents[:, :, None, None])  # [P, 2, h, w]
        raw_means, raw_stds = maps.flatten(2).contiguous().unbind(1)
        stds = (F.softplus(raw_stds) + MIN_STD).clamp(max=MAX_STD)
        return raw_means.sigmoid(), stds.log()

    def loss(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """-log 1/P Σ_p N(x; μ(z_p), σ(z_p)), mean over images x [B, D], in nats.

        The points are drawn anew from the generator. The objective 'best' is -log 1/P N(x; z_b) in
        training mode, with the best of the points b for each image: it is searched without a
        gradient, and batch norm then sees the best points of the batch alone. In evaluation mode
        the loss is the full mixture's for both, exact to float64 and without a gradient; in
        training mode its float32 product can be off by nats where σ is near 10^-3. Parts: nll, the
        full mixture's.
        """
        if not self.training:
            nll = self.exact_loss(x, generator)
            return nll, {"nll": nll}
        latents = normal_points(self.settings.points, self.settings.latent_dimension, generator)
        latents = latents.to(x.dtype).to(x.device, non_blocking=True)
        log_points, best = math.log(self.settings.points), self.settings.objective == "best"
        with torch.set_grad_enabled(not best and torch.is_grad_enabled()):
            terms = self.log_likelihoods(x, latents)  # [B, P]
            nll = log_points - terms.logsumexp(1).mean()
        if not best:
            return nll, {"nll": nll.detach()}
        with unchanged_statistics(self):  # which are those of all points
            of_best = log_density(x, *self.decode(latents[terms.argmax(1)])).sum(1)
        return log_points - of_best.mean(), {"nll": nll}

    def exact_loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The same -log of the mean over points, in float64; NaN where a point is no number."""
        mixture = circuit(self, self.settings.points, generator)
        if not all(part.isfinite().all() for part in (mixture.means, mixture.log_stds)):
            return x.new_tensor(math.nan)
        return -mixture.log_prob(x).mean()

    def log_likelihoods(self, x: Tensor, latents: Tensor) -> Tensor:
        """log N(x_b; μ(z_p), σ(z_p)) [B, P] of images x [B, D] and latents [P, latent], in nats.

        Batch norm sees the latents in chunks. Where there are several, a chunk's activations are
        computed again for its gradient, so that memory doesn't grow with P; batch norm's running
        statistics take each chunk in once.
        """

        def of_chunk(chunk: Tensor) -> Tensor:
            return log_likelihoods(x, *self.decode(chunk))

        chunks = latents.split(self.settings.chunk)
        if len(chunks) == 1:
            return of_chunk(latents)
        parts = [
            checkpoint(
                of_chunk,
                chunk,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is random
                context_fn=lambda: (nullcontext(), unchanged_statistics(self)),
            )
            for chunk in chunks
        ]
        return torch.cat(parts, 1)


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """What a pass adds to batch norm's running statistics is taken back; its gradient doesn't need
    them."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.data.copy_(value)


def normal_points(n: int, dimension: int, generator: torch.Generator) -> Tensor:
    """n quasi-random points of N(0, I) [n, dimension], float64: scrambled Sobol through Φ⁻¹.

    One seed is drawn from the generator, whatever n: a shorter set is a prefix of a longer one.
    """
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=drawn_seed(generator))
    uniform = engine.draw(n, dtype=torch.float64).to(generator.device)
    half_step = 0.5 / 2**engine.MAXBIT  # the points lie on a lattice that includes 0
    return torch.special.ndtri(uniform + half_step)

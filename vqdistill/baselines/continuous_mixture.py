"""Continuous mixture (Correia et al. 2023, https://arxiv.org/abs/2209.10584), a baseline.

p(x) = E_{z ~ N(0, I)} [Π_s N(x_s; μ_s(z), σ_s(z))] with a convolutional decoder, trained on a
mixture of P randomised quasi-Monte-Carlo points and compiled to a mixture of N of them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.circuits.base import MAX_STD, MIN_STD
from vqdistill.circuits.mixture import Mixture
from vqdistill.errors import InputError
from vqdistill.models.batch_norm import BatchNorm2d
from vqdistill.models.doubling import Doubling
from vqdistill.models.softmax import log_sum_exp
from vqdistill.randomness import drawn_seed
from vqdistill.training.gradient import GradientTrainer

PREFIXES_ARE_MODELS = True
VALIDATION_ENTRIES = 2**25  # of the matrix [B, P] of log-likelihoods


@dataclass(frozen=True)
class Settings:
    """Settings of a continuous mixture; the defaults are the published ones for 28×28 images.

    channels: outputs of the transposed convolutions, the last being 2 (mean and deviation).
    points: P of a training step. chunk: points that batch norm sees, and memory holds, at a time.
    objective: 'mixture' (all points) or 'best' (the best point of each image).
    """

    latent_dimension: int = 16
    channels: tuple[int, ...] = (128, 64, 32, 2)
    points: int = 16384
    chunk: int = 1024
    objective: str = "mixture"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5


def build(image_shape: tuple[int, int], settings: Settings) -> "ContinuousMixture":
    """An untrained model. Raises InputError if the settings don't fit the images."""
    return ContinuousMixture(image_shape, settings)


def trainer(
    model: "ContinuousMixture", batches, validation_x: Tensor, generator, settings: Settings
) -> GradientTrainer:
    """Adam on the model's loss; validation takes as many images at once as memory allows."""
    rows = max(1, VALIDATION_ENTRIES // settings.points)

    def validation_batches() -> Iterator[tuple[Tensor]]:
        return ((x,) for x in validation_x.split(rows))

    return GradientTrainer(
        model,
        batches,
        validation_batches,
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
    log_weights = torch.full(
        (n_components,), -math.log(n_components), dtype=torch.float64, device=means.device
    )
    return Mixture(log_weights, means, log_stds)


class ContinuousMixture(nn.Module):
    """The decoder of a continuous mixture of grey images [h, w]."""

    recordable = False  # its points come from the host

    def __init__(self, image_shape: tuple[int, int], settings: Settings):
        super().__init__()
        check_settings(image_shape, settings)
        self.settings = settings
        self.image_shape = tuple(image_shape)
        self.decoder = build_decoder(image_shape, settings.latent_dimension, settings.channels)

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, each [P, D], of p(x | z) at latents [P, latent]."""
        means, stds = self.leaves(latents)
        return means, stds.log()

    def leaves(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, each [P, D]."""
        points = latents[:, :, None, None].to(memory_format=torch.channels_last)
        maps = self.decoder(points).flatten(2).contiguous()  # [P, 2, D]
        raw_means, raw_stds = maps.unbind(1)
        stds = F.softplus(raw_stds) + MIN_STD
        return raw_means.sigmoid(), F.hardtanh(stds, 0.0, MAX_STD)  # clamp's gradient needs a mask

    def loss(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """-log 1/P Σ_p N(x; μ(z_p), σ(z_p)), mean over images x [B, D], in nats.

        The points are drawn anew from the generator. Each chunk's activations are computed again
        for its gradient, so that memory doesn't grow with P. The objective 'best' is the upper
        bound -log 1/P max_p N(x; μ(z_p), σ(z_p)) in training mode. In evaluation mode the loss is
        the full mixture's for both, exact to float64 and without a gradient; in training mode its
        float32 product can be off by nats where σ is near 10^-3. Parts: nll, the full mixture's.
        """
        if not self.training:
            nll = self.exact_loss(x, generator)
            return nll, {"nll": nll}
        latents = normal_points(self.settings.points, self.settings.latent_dimension, generator)
        latents = latents.to(x.dtype).to(x.device, non_blocking=True)
        log_likelihoods = self.log_likelihoods(x, latents)  # [B, P]
        log_points = math.log(self.settings.points)
        nll = log_points - log_sum_exp(log_likelihoods).mean()
        if self.settings.objective == "best":
            return log_points - log_likelihoods.amax(1).mean(), {"nll": nll.detach()}
        return nll, {"nll": nll.detach()}

    def exact_loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The same -log of the mean over points, in float64; NaN where a point is no number."""
        mixture = circuit(self, self.settings.points, generator)
        if not all(part.isfinite().all() for part in (mixture.means, mixture.log_stds)):
            return x.new_tensor(math.nan)
        return -mixture.log_prob(x).mean()

    def log_likelihoods(self, x: Tensor, latents: Tensor) -> Tensor:
        """log N(x_b; μ(z_p), σ(z_p)) [B, P] of images x [B, D] and latents [P, latent], in nats.

        Batch norm sees the latents in chunks; its running statistics take each chunk in once.
        """
        features = torch.cat([x.square(), x], 1)  # [B, 2D]
        chunks = latents.split(self.settings.chunk)
        if len(chunks) == 1:
            return self.chunk_log_likelihoods(features, latents)
        parameters = tuple(self.parameters())
        parts = [Recomputed.apply(self, features, chunk, *parameters) for chunk in chunks]
        return torch.cat(parts, 1)

    def chunk_log_likelihoods(self, features: Tensor, latents: Tensor) -> Tensor:
        return gaussian_log_likelihoods(features, *self.leaves(latents))


def gaussian_log_likelihoods(features: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Σ_d -x²/2σ² + xμ/σ² - (μ²/2σ² + log σ√2π) [B, P] as one matrix product.

    features: [x², x] of images [B, 2D]; means, stds: [P, D].
    """
    return GaussianLogLikelihoods.apply(features, means, stds)


class GaussianLogLikelihoods(torch.autograd.Function):
    """The product, and its gradient in fewer passes than step by step."""

    @staticmethod
    def forward(ctx, features: Tensor, means: Tensor, stds: Tensor):
        weights = means.new_empty(len(means), 2, means.shape[1])
        quadratic, linear = weights.unbind(1)
        precisions = stds.square().reciprocal_()
        torch.mul(precisions, -0.5, out=quadratic)
        torch.mul(precisions, means, out=linear)
        constants = -torch.addcmul(stds.log(), means, linear, value=0.5).sum(1)  # [P]
        constants -= 0.5 * means.shape[1] * math.log(2 * math.pi)
        ctx.save_for_backward(features, means, stds, precisions)
        return torch.addmm(constants, features, weights.flatten(1).T)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        features, means, stds, precisions = ctx.saved_tensors
        of_points = gradient.sum(0)[:, None]  # Σ_b g
        squares, values = (gradient.T @ features).chunk(2, 1)  # Σ_b g x², Σ_b g x
        differences = torch.addcmul(values, of_points, means, value=-1)  # Σ_b g (x - μ)
        spread = torch.addcmul(squares, values + differences, means, value=-1)  # Σ_b g (x - μ)²
        of_stds = spread.mul_(precisions).sub_(of_points).div_(stds)
        return None, differences.mul_(precisions), of_stds


class Recomputed(torch.autograd.Function):
    """A chunk's log-likelihoods, whose activations are computed again for the gradient."""

    @staticmethod
    def forward(ctx, model: ContinuousMixture, features: Tensor, latents: Tensor, *parameters):
        ctx.model = model
        ctx.save_for_backward(features, latents, *parameters)
        return model.chunk_log_likelihoods(features, latents)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        features, latents, *parameters = ctx.saved_tensors
        with torch.enable_grad(), frozen_statistics(ctx.model):
            log_likelihoods = ctx.model.chunk_log_likelihoods(features, latents)
        return None, None, None, *torch.autograd.grad(log_likelihoods, parameters, gradient)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises as in training but leaves its running statistics as they are."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def normal_points(n: int, dimension: int, generator: torch.Generator) -> Tensor:
    """n quasi-random points of N(0, I) [n, dimension], float64: scrambled Sobol through Φ⁻¹.

    One seed is drawn from the generator, whatever n: a shorter set is a prefix of a longer one.
    """
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=drawn_seed(generator))
    uniform = engine.draw(n, dtype=torch.float64)
    half_step = 0.5 / 2**engine.MAXBIT  # the points lie on a lattice that includes 0
    return torch.special.ndtri(uniform + half_step)


def decoder_sides(image_shape: tuple[int, int]) -> list[int]:
    """Sides of the square maps before cropping: 1 -> 3 -> 7 -> ... until one covers the image.

    A transposed convolution of kernel 3 and stride 2 takes side s to 2s + 1; the last one is
    cropped to the image by its padding: 1 -> 3 -> 7 -> 15 -> 31 (28), 1 -> 3 -> 7 -> 15 (8).
    """
    sides = [1, 3]
    while sides[-1] < max(image_shape):
        sides.append(2 * sides[-1] + 1)
    return sides


def build_decoder(
    image_shape: tuple[int, int], latent_dimension: int, channels: tuple[int, ...]
) -> nn.Sequential:
    """[P, latent, 1, 1] -> [P, 2, h, w]: batch norm, LeakyReLU and residual blocks in between."""
    modules: list[nn.Module] = []
    n_in = latent_dimension
    for n_out in channels[:-1]:
        modules += [
            Doubling(n_in, n_out, 3, 2, bias=False),
            BatchNorm2d(n_out),
            nn.LeakyReLU(inplace=True),
            Residual(n_out),
        ]
        n_in = n_out
    excess = [decoder_sides(image_shape)[-1] - side for side in image_shape]
    padding = tuple((extra + 1) // 2 for extra in excess)
    output_padding = tuple(extra % 2 for extra in excess)
    last = Doubling(n_in, channels[-1], 3, 2, padding, output_padding, bias=False)
    return nn.Sequential(*modules, last)


class Residual(nn.Module):
    """x + BN(1×1(a(BN(3×3(a(x)))))) of feature maps x [P, C, H, W], a the leaky ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.LeakyReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNorm2d(channels),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x).add_(x)


def check_settings(image_shape: tuple[int, int], settings: Settings) -> None:
    """Raises InputError at the first setting that is impossible."""
    n_layers = len(decoder_sides(image_shape)) - 1
    if len(settings.channels) != n_layers or settings.channels[-1] != 2:
        raise InputError(
            f"channels: {tuple(settings.channels)} given, but images of {tuple(image_shape)} "
            f"pixels need {n_layers} numbers, the last of which is 2 (mean and deviation)"
        )
    if settings.points < 1 or settings.chunk < 1:
        raise InputError(
            f"points, chunk: {settings.points} and {settings.chunk} given, give at least 1"
        )
    if settings.points > settings.chunk and settings.points % settings.chunk:
        raise InputError(
            f"points: {settings.points} is no multiple of chunk {settings.chunk}, and batch norm "
            "needs chunks of one size; choose powers of two"
        )
    if settings.objective not in ("mixture", "best"):
        raise InputError(f"objective: '{settings.objective}' given, choose 'mixture' or 'best'")

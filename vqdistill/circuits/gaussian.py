"""Gaussian leaves: the one place where densities of pixels are computed."""

import math

import torch
from torch import Tensor

MIN_STD = 1e-3  # uniform noise of one of 256 grey levels has a standard deviation of 1.13e-3
MAX_STD = 1.0
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def log_density(x: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
    """log N(x; μ, σ) of every entry, in nats; the shapes broadcast."""
    return -0.5 * ((x - means) * torch.exp(-log_stds)).square() - log_stds - HALF_LOG_TWO_PI


def log_likelihoods(x: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
    """Σ_d log N(x_bd; μ_nd, σ_nd) [B, N] of images x [B, D] under components [N, D], in nats.

    One matrix product of [x², −2x] with [−1/2σ², −μ/2σ²], in the type of the inputs: float32 loses
    nats where σ is near 10⁻³, since terms of size 1/σ² cancel.
    """
    quadratic = -0.5 * torch.exp(-2 * log_stds)
    linear = quadratic * means
    constants = (linear * means - log_stds).sum(1) - HALF_LOG_TWO_PI * means.shape[1]
    features, weights = torch.cat([x.square(), -2 * x], 1), torch.cat([quadratic, linear], 1)
    return torch.addmm(constants, features, weights.T)

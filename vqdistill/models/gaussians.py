"""The Gaussians that a decoder gives each pixel, and the likelihood of images under them.

Of a decoder's maps the first is a mean before its sigmoid, the second a log-variance, of which a
half is kept between the logarithms of the smallest and the largest standard deviation.
"""

import math
from typing import Any

import torch
from torch import Tensor

from vqdistill.circuits.base import MAX_STD, MIN_STD
from vqdistill.circuits.components import HALF_LOG_TWO_PI

LOWEST, HIGHEST = math.log(MIN_STD), math.log(MAX_STD)


def gaussians(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log standard deviations, each [B, D], of maps [B, 2, D]."""
    raw_means, raw_log_variances = maps.unbind(1)
    return raw_means.sigmoid(), (raw_log_variances / 2).clamp(LOWEST, HIGHEST)


def gaussian_log_prob(x: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
    """log N(x; μ, σ) of every entry, in nats; all shapes alike."""
    scaled = (x - means) * torch.exp(-log_stds)
    return -0.5 * scaled.square() - log_stds - HALF_LOG_TWO_PI


class NegativeLogLikelihood(torch.autograd.Function):
    """-log Π_d N(x_d; μ_d, σ_d) of images x [B, D] under maps [B, 2, D]: [B], in nats.

    With its gradient for the maps, which takes a third of the time that it takes step by step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: Tensor) -> Tensor:
        means, log_stds = gaussians(maps)
        inverse_stds = torch.exp(-log_stds)
        scaled = (x - means).mul_(inverse_stds)
        ctx.save_for_backward(maps, means, inverse_stds, scaled)
        squares = torch.linalg.vecdot(scaled, scaled)
        return 0.5 * squares + log_stds.sum(1) + HALF_LOG_TWO_PI * x.shape[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        maps, means, inverse_stds, scaled = ctx.saved_tensors
        of_maps, gradient = torch.empty_like(maps), gradient[:, None]
        of_raw_means, of_raw_log_variances = of_maps.unbind(1)
        torch.mul(means, means - 1, out=of_raw_means)
        of_raw_means.mul_(scaled).mul_(inverse_stds).mul_(gradient)
        of_log_variances = scaled.square().neg_().add_(1).mul_(0.5 * gradient)
        torch.ops.aten.hardtanh_backward.grad_input(  # of the bounds, without a mask
            of_log_variances, maps[:, 1], 2 * LOWEST, 2 * HIGHEST, grad_input=of_raw_log_variances
        )
        return None, of_maps

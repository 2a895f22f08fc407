"""The teacher's own figures: what a VQ-VAE and its prior reach before any distillation."""

import torch
from torch import Tensor

from vqdistill.data import bits_per_dimension
from vqdistill.distillation.base import log_prob_by_class, mean_over_classes
from vqdistill.models.gaussians import gaussian_log_prob
from vqdistill.models.vqvae import VQVAE

ROWS = 1000


@torch.no_grad()
def teacher_row(vqvae: VQVAE, prior, x: Tensor, levels: int) -> dict[str, float]:
    """Means over images x [n, D], with z(x) the codes of the encoder.

    reconstruction_bpd: log p(x | z(x)) as bits per dimension, no density of x; joint_bpd:
    log p(x, z(x)) likewise, an upper bound of the exact model's BPD, for one term of its sum is a
    lower bound of the sum.
    """
    codes, index = vqvae.encode(x).unique(dim=0, return_inverse=True)
    log_prior = mean_over_classes(log_prob_by_class(prior, codes))[index].mean()
    reconstruction = []
    for part, rows in zip(x.split(ROWS), index.split(ROWS), strict=True):
        leaves = gaussian_log_prob(part.double(), *(p.double() for p in vqvae.decode(codes[rows])))
        reconstruction.append(leaves.sum(1))
    log_likelihood = torch.cat(reconstruction).mean()
    return {
        "n_images": len(x),
        "reconstruction_bpd": bits_per_dimension(log_likelihood.item(), x.shape[1], levels),
        "code_log_prob": log_prior.item(),
        "joint_bpd": bits_per_dimension((log_likelihood + log_prior).item(), x.shape[1], levels),
    }


def partial_sum_excess(
    exact_log_prob: Tensor, log_prob: Tensor, log_prior: Tensor
) -> dict[str, float]:
    """How far log Σ_selected p(z) p(x|z) lies above log Σ_all p(z) p(x|z), image by image.

    exact_log_prob: log p(x) [n] of the exact model; log_prob: log p(x) [n] of the mixture of the
    selected latents, weighted by the prior; log_prior: log p(z) of these latents, whose sum the
    weights of the mixture were divided by. The sum over some latents can't exceed the sum over
    all: `largest_excess`, in nats, is at most rounding error. `mean_gap` is what the selected
    latents miss, in nats per image.
    """
    difference = log_prob + torch.logsumexp(log_prior, 0) - exact_log_prob
    return {
        "n_images": len(log_prob),
        "largest_excess": difference.max().item(),
        "mean_gap": -difference.mean().item(),
    }

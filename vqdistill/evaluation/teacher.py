"""The teacher's own figures: what a VQ-VAE and its prior reach before any distillation."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vqdistill.circuits.gaussian import log_density
from vqdistill.distillation import EXACT_METHOD
from vqdistill.distillation.selection import log_prob_by_class, mean_over_classes
from vqdistill.evaluation.density import bits, quantiles
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels
from vqdistill.models.vqvae import VQVAE

IMAGES_AT_ONCE = 1000


@torch.no_grad()
def teacher_row(vqvae: VQVAE, prior, x: Tensor, levels: int) -> dict[str, float]:
    """Means and quantiles over images x [n, D], with z(x) the codes of the encoder.

    reconstruction_bpd: log p(x | z(x)) as bits per dimension, no density of x; joint_bpd:
    log p(x, z(x)) likewise, an upper bound of the exact model's BPD, for one term of its sum is a
    lower bound of the sum.
    """
    codes, index = vqvae.encode(x).unique(dim=0, return_inverse=True)
    log_prior = mean_over_classes(log_prob_by_class(prior, codes))[index]
    reconstruction = []
    for part, rows in zip(x.split(IMAGES_AT_ONCE), index.split(IMAGES_AT_ONCE), strict=True):
        leaves = log_density(part.double(), *(p.double() for p in vqvae.decode(codes[rows])))
        reconstruction.append(leaves.sum(1))
    log_likelihood = torch.cat(reconstruction)
    return {
        "n_images": len(x),
        **bits("reconstruction_bpd", log_likelihood, x.shape[1], levels),
        "code_log_prob": log_prior.mean().item(),
        **bits("joint_bpd", log_likelihood + log_prior, x.shape[1], levels),
    }


def bound_rows(
    circuits: Sequence[EvaluatedModels], test: Sequence[Sequence[Evaluated]]
) -> Iterator[dict[str, object]]:
    """Rows of bounds.csv: how the selections of a teacher with an exact model stay below it.

    test: log p(x) [n] of the test images, of the models of each circuit. No rows without ExM.
    """
    by_prior = [
        (models, n, log_prob)
        for models, evaluated in zip(circuits, test, strict=True)
        for n, weights, log_prob in evaluated
        if weights == "prior"
    ]
    exact = [log_prob for models, _, log_prob in by_prior if models.method == EXACT_METHOD]
    for models, n, log_prob in by_prior if exact else []:
        if models.method != EXACT_METHOD:
            row = {"method": models.method, "n_components": n}
            yield row | partial_sum_bound(exact[0], log_prob, models.log_prior[:n])


def partial_sum_bound(
    exact_log_prob: Tensor, log_prob: Tensor, log_prior: Tensor
) -> dict[str, float]:
    """log Σ_selected p(z) p(x|z) against log Σ_all p(z) p(x|z), image by image.

    exact_log_prob: log p(x) [n] of the exact model; log_prob: log p(x) [n] of the mixture of the
    selected latents, weighted by the prior; log_prior: log p(z) of these latents, whose sum the
    weights of the mixture were divided by. The sum over some latents can't exceed the sum over
    all: `largest_violation`, the largest difference in nats, is at most rounding error.
    `mean_gap` is what the selected latents miss, in nats per image, and `gap_q50`, … are its
    quantiles.
    """
    difference = log_prob + torch.logsumexp(log_prior, 0) - exact_log_prob
    return {
        "n_images": len(log_prob),
        "largest_violation": difference.max().item(),
        "mean_gap": -difference.mean().item(),
        **quantiles("gap", -difference.cpu().numpy()),
    }


def code_frequencies(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code is used among codes [n, H, W], as shares of all, in descending order."""
    counts = torch.bincount(codes.flatten(), minlength=codebook_size).double()
    return (counts / counts.sum()).sort(descending=True).values

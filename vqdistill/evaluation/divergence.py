"""How far models are from the teacher that they were distilled from, on samples of the teacher.

KL(p ‖ q) = E_p[log p(x) − log q(x)] of the teacher's p(x) = Σ_z p(z) p(x|z). Where its exact model
is at hand, log p(x) is known. Elsewhere a sample x, drawn from p(x|z'), is bracketed by two
estimates over N fresh latents z_n ~ p(z): the mean of p(x|z_n), whose logarithm is too low on
average (Jensen), and the mean over them and z', which is a draw from p(z|x), whose logarithm is too
high on average (Grosse et al. 2015, bidirectional Monte Carlo).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.gaussian import log_density
from vqdistill.circuits.mixture import StreamedMixture
from vqdistill.data import bits_per_dimension
from vqdistill.distillation import dmrs
from vqdistill.distillation.mixtures import distilled_mixture
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.models.vqvae import VQVAE

N_SAMPLES = 1000
N_FRESH = 20_000  # latents
SAMPLED_AT_ONCE = 1000


class TeacherDensity(NamedTuple):
    """Samples of a teacher, with what is known of their log p(x), in nats."""

    x: Tensor  # [n, D]
    low: Tensor  # [n] float64, at most log p(x) on average
    high: Tensor  # [n] float64, at least log p(x) on average; the same where p is exact


@torch.no_grad()
def teacher_density(
    vqvae: VQVAE,
    prior,
    exact: StreamedMixture | None,
    generator: torch.Generator,
    n_fresh: int = N_FRESH,
) -> TeacherDensity:
    """Samples x ~ p(x), and their log-likelihood by the exact model or from both sides."""
    codes = draw_latents(prior, N_SAMPLES, generator)
    means, log_stds = vqvae.decode(codes)
    noise = torch.randn(means.shape, generator=generator, device=generator.device)
    x = means + log_stds.exp() * noise.to(means.device)
    if exact is not None:
        log_prob = exact.log_prob(x)
        return TeacherDensity(x, log_prob, log_prob)
    fresh, counts = draw_latents(prior, n_fresh, generator).unique(dim=0, return_counts=True)
    low = distilled_mixture(vqvae, fresh, (counts.double() / n_fresh).log()).log_prob(x)
    own = log_density(x.double(), means.double(), log_stds.double()).sum(1)
    share = torch.tensor(1 / (n_fresh + 1), dtype=torch.float64, device=x.device)
    high = torch.logaddexp(low + torch.log1p(-share), own + share.log())
    return TeacherDensity(x, low, high)


def draw_latents(prior, n: int, generator: torch.Generator) -> Tensor:
    """Codes [n, H, W] of n independent z ~ p(z)."""
    sizes = [len(part) for part in torch.empty(n).split(SAMPLED_AT_ONCE)]
    return torch.cat([dmrs.sample(prior, size, generator)[0] for size in sizes])


def divergence_rows(
    circuits: Sequence[EvaluatedModels], teacher: TeacherDensity, levels: int
) -> Iterator[dict[str, object]]:
    """Rows of divergence.csv: KL of every model, in bits per dimension, and its own BPD there."""
    n_variables = teacher.x.shape[1]
    of_teacher = [
        bits_per_dimension(log_prob.mean().item(), n_variables, levels)
        for log_prob in (teacher.low, teacher.high)
    ]
    for models in circuits:
        for n_components, weights, log_prob in models.log_probs(teacher.x):
            bpd = bits_per_dimension(log_prob.mean().item(), n_variables, levels)
            yield models.keys(n_components, weights) | {
                "n_samples": len(log_prob),
                "bpd_of_samples": bpd,
                "kl_low": bpd - of_teacher[0],
                "kl_high": bpd - of_teacher[1],
                "n_parameters": models.n_parameters(n_components),
            }

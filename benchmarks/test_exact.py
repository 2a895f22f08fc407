"""ExM: log p(x) of 1,000 images under a mixture over all K⁴ latents of a 2×2 grid."""

import math

import pytest
import torch

from benchmarks.problems import images, memory_of, peak_memory, trained
from benchmarks.test_mixture import broadcast
from vqdistill.circuits.mixture import Mixture
from vqdistill.distillation.enumeration import codes_of
from vqdistill.distillation.exm import log_probs_of_all
from vqdistill.distillation.mixtures import exact_mixture

N_IMAGES = 1000
SIZES = [8, 16, 32]
STREAMED = (24, 32)  # whose components are too many to be kept
SLICE = 512  # latents that the naive way is timed on
MORE_MEMORY = 1.1  # at most, for 3.2 times the latents: their log-weights are held


def exact(size: int) -> torch.Tensor:
    """From the prior and the decoder to log p(x) [n]."""
    vqvae, prior = trained((2, 2), size)
    return exact_mixture(vqvae, *log_probs_of_all(prior)).log_prob(images(N_IMAGES))


def naive(size: int) -> torch.Tensor:
    """The first latents alone, one evaluation of the prior a latent and class."""
    vqvae, prior = trained((2, 2), size)
    log_prior = []
    for index in range(SLICE):
        codes = codes_of(torch.tensor([index]), size, (2, 2))
        by_class = [prior.log_prob(codes, torch.tensor([c])) for c in range(10)]
        log_prior.append(torch.cat(by_class).logsumexp(0) - math.log(10))
    log_prior = torch.stack(log_prior)
    means, log_stds = vqvae.decode(codes_of(torch.arange(SLICE), size, (2, 2)))
    part = Mixture(log_prior.log_softmax(0), means, log_stds)
    found = broadcast(images(N_IMAGES), part, None, 8, 64)[0]
    return found + log_prior.logsumexp(0)


@pytest.mark.parametrize("size", SIZES)
def test_vqdistill(timed, size):
    trained((2, 2), size)
    found = timed(lambda: exact(size), "exact", "vqdistill", size, rounds=1)
    assert found.isfinite().all()
    assert (naive(size) <= found + 1e-2).all()  # a part of the sum, in float32


@pytest.mark.parametrize("size", SIZES)
def test_naive(timed, size):
    trained((2, 2), size)
    timed(lambda: naive(size), "exact", "naive", size, share=SLICE / size**4, rounds=1)


def report_memory(size: int) -> None:
    """Print the peak memory of evaluating the exact model."""
    exact(size)
    print(peak_memory())


def test_memory_does_not_grow_with_the_latents(benchmark):
    small = memory_of("test_exact", STREAMED[0])
    large = benchmark.pedantic(lambda: memory_of("test_exact", STREAMED[1]), rounds=1)
    benchmark.extra_info.update(
        task="exact memory", implementation="vqdistill", size=STREAMED[1], bytes=large,
        smaller_size=STREAMED[0], bytes_at_smaller=small,
    )  # fmt: skip
    assert large < MORE_MEMORY * small

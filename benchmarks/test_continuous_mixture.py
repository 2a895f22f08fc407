"""A training step of the continuous mixture: 128 images, the paper's decoder."""

import functools

import pytest
import torch

from benchmarks.problems import images, memory_of, peak_memory, seeded
from vqdistill.baselines.continuous_mixture import ContinuousMixture, Settings, normal_points
from vqdistill.circuits.gaussian import log_density, log_likelihoods

N_IMAGES = 128
SIZES = [1024, 4096, 16384]  # integration points
MORE_MEMORY = 1.1  # of 16,384 points than of 4,096, at most: [images, points] is held
ROWS = {"all images": 128, "16 images": 16}


@functools.cache
def leaves(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log standard deviations [P, D] of a decoder with random weights."""
    with torch.no_grad():
        model = decoder(size).eval()
        return model.decode(normal_points(size, 16, seeded()).float())


def decoder(size: int) -> ContinuousMixture:
    torch.manual_seed(0)
    return ContinuousMixture((28, 28), Settings(points=size))


def expanded(x, means, log_stds):
    """log p(x) by vqdistill's product of [x², −2x] with the precision-weighted means."""
    return log_likelihoods(x, means, log_stds).logsumexp(1)


def broadcast(x, means, log_stds):
    """log p(x) from (x − μ)²/σ², whose terms are kept for the gradient."""
    return log_density(x[:, None], means, log_stds).sum(2).logsumexp(1)


def density_step(density, x, size, rows):
    """Forward and backward through the density alone."""
    means, log_stds = (part.clone().requires_grad_() for part in leaves(size))
    for part in x.split(rows):
        density(part, means, log_stds).sum().backward()
    return means.grad, log_stds.grad


@pytest.mark.parametrize("size", SIZES)
def test_density_of_vqdistill(timed, size):
    x = images(N_IMAGES)
    timed(lambda: density_step(expanded, x, size, N_IMAGES), "CM density", "vqdistill", size)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", SIZES[:2])
def test_density_by_broadcast(timed, size, rows):
    x = images(N_IMAGES)
    found = timed(
        lambda: density_step(broadcast, x, size, ROWS[rows]), "CM density", "broadcast", size,
        rows,
    )  # fmt: skip
    for one, other in zip(found, density_step(expanded, x, size, N_IMAGES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


@pytest.mark.parametrize("size", SIZES)
def test_step_of_vqdistill(timed, size):
    model, x = decoder(size), images(N_IMAGES)

    def step():
        loss, _ = model.loss(x, seeded())
        loss.backward()

    timed(step, "CM step", "vqdistill", size, rounds=1)


@pytest.mark.parametrize("size", SIZES[:2])
def test_step_with_stored_activations(timed, size):
    model, x = decoder(size), images(N_IMAGES)

    def step():
        means, log_stds = model.decode(normal_points(size, 16, seeded()).float())
        loss = sum(broadcast(part, means, log_stds).sum() for part in x.split(16))
        loss.backward()

    timed(step, "CM step", "broadcast", size, rounds=1)


def report_memory(size: int) -> None:
    """Print the peak memory of one training step."""
    loss, _ = decoder(size).loss(images(N_IMAGES), seeded())
    loss.backward()
    print(peak_memory())


def test_memory_does_not_grow_with_the_points(benchmark):
    small = memory_of("test_continuous_mixture", 4096)
    large = benchmark.pedantic(lambda: memory_of("test_continuous_mixture", 16384), rounds=1)
    benchmark.extra_info.update(
        task="CM step memory", implementation="vqdistill", size=16384, bytes=large,
        smaller_size=4096, bytes_at_smaller=small,
    )  # fmt: skip
    assert large < MORE_MEMORY * small

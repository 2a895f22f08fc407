"""Selecting N of 4096^16 latents of a 4×4 grid with a prior of the paper's size."""

import functools
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from benchmarks.problems import memory_of, peak_memory, seeded
from vqdistill.distillation import dmbs, dmrs
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.settings import Prior

K, GRID, C = 4096, (4, 4), 10
SIZES = [64, 256, 1024]
LARGEST = 16384
MEMORY = 4e9
SAMPLES = 64  # that the naive sampler is timed on


@functools.cache
def prior() -> PixelCNN:
    """Of the paper's width and depth, with random weights."""
    torch.manual_seed(0)
    settings = Prior(grid=GRID, codebook_size=K, width=512, layers=10, head=512)
    return PixelCNN(settings, C).eval().requires_grad_(False)


class Codes(NamedTuple):
    """Prefixes as they are: codes [B, i] and classes [B]."""

    codes: torch.Tensor
    classes: torch.Tensor


class FullPass:
    """A prior that evaluates the whole grid for each position, as a plain sampler does."""

    codebook_size, grid, n_classes, device = K, GRID, C, torch.device("cpu")

    def begin(self, classes):
        return Codes(torch.zeros(len(classes), 0, dtype=torch.int64), classes)

    def next_log_probs(self, prefixes):
        position = prefixes.codes.shape[1]
        filled = F.pad(prefixes.codes, (0, math.prod(GRID) - position))
        logits = [
            prior()(codes.unflatten(1, GRID), classes).flatten(1, 2)[:, position]
            for codes, classes in zip(filled.split(128), prefixes.classes.split(128), strict=True)
        ]
        return torch.cat(logits).double().log_softmax(1)

    def extend(self, prefixes, parents, codes):
        longer = torch.cat([prefixes.codes[parents], codes[:, None]], 1)
        return Codes(longer, prefixes.classes[parents])


def beam(model, size, n_classes=C):
    """The beams of all classes, or of the first ones."""
    g = seeded(size)
    return [dmbs.search(model, c, math.ceil(size / C), g) for c in range(n_classes)]


@pytest.mark.parametrize("size", SIZES)
def test_beam_of_vqdistill(timed, size):
    found = timed(lambda: beam(prior(), size), "DMBS", "vqdistill", size, rounds=1)
    codes, scores = found[0]
    expected = prior().log_prob(codes, torch.zeros(len(codes), dtype=torch.int64))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_beam_with_full_passes(timed, size):
    found = timed(
        lambda: beam(FullPass(), size, 1), "DMBS", "full passes", size, share=1 / C, rounds=1
    )
    expected = beam(prior(), size, 1)
    torch.testing.assert_close(found[0][1], expected[0][1], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", SIZES)
def test_sampling_of_vqdistill(timed, size):
    found = timed(
        lambda: dmrs.sample(prior(), size, seeded())[0], "DMRS", "vqdistill", size, rounds=1
    )
    assert found.shape == (size, *GRID)


@pytest.mark.parametrize("size", SIZES)
def test_sampling_with_full_passes(timed, size):
    count = min(size, SAMPLES)
    timed(
        lambda: dmrs.sample(FullPass(), count, seeded()), "DMRS", "full passes", size,
        share=count / size, rounds=1,
    )  # fmt: skip


def report_memory(method: str) -> None:
    """Print the peak memory of one selection of the largest size, before the weighting pass."""
    model, g = prior(), seeded()
    if method == "dmbs":
        dmbs.search(model, 0, math.ceil(LARGEST / C), g)
    else:
        dmrs.draw(model, LARGEST, g, torch.zeros(0, *GRID, dtype=torch.int64))
    print(peak_memory())


@pytest.mark.parametrize("method", ["dmbs", "dmrs"])
def test_memory_at_the_largest_size(benchmark, method):
    memory = benchmark.pedantic(lambda: memory_of("test_selection", method), rounds=1)
    benchmark.extra_info.update(
        task=f"{method} memory", implementation="vqdistill", size=LARGEST, bytes=memory
    )
    assert memory < MEMORY

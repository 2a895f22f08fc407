"""Why a deep circuit is ahead of a flat mixture of the same teacher: its gain taken apart.

*Recombination.* With an image cut into blocks, Π_block p(x_block) lets each block be explained for
itself. Of a flat mixture it is what the decoder's Gaussians give when parts of images recombine
freely, and nothing new is learned.

*Pixels.* By the chain rule log p(x) is the sum of log p(x_d | x_1, …, x_d−1) over the pixels in
reading order. So the bits of a model are those of its pixels, by place, by grey level, and by the
standard deviation σ that the decoder gives the pixel, for the image's own code.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.gaussian import log_density
from vqdistill.circuits.mixture import StreamedMixture
from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.models.vqvae import VQVAE

FLAT, DEEP = "dmrs", "deep"
PIXELS = 32_000  # of the first test images, together
COMPONENTS = 64  # of a mixture, at a time
SQUARES = 7  # at most so many, about, beside each other are the `places` of an image
SIGMAS = (0.0, 0.01, 0.03, 0.1, 0.3)  # lower ends of the ranges of σ
GREYS = ("black", "grey", "white")


class Gain(NamedTuple):
    """What a gain consists of, as rows of gain_blocks.csv, gain_places.csv and gain_pixels.csv."""

    blocks: list[dict[str, object]]
    places: list[dict[str, object]]
    pixels: list[dict[str, object]]


COLUMNS = Gain(["block", "bpd"], ["row", "column", "bits"], ["sigma", "grey", "share", "bpd"])


@torch.no_grad()
def gain(circuits: Sequence[EvaluatedModels], vqvae: VQVAE, test: Tensor, levels: int) -> Gain:
    """That of the smallest deep circuit over the largest mixture of DMRS; no rows where one of
    them is missing. test: images [n, D]."""
    found = Gain([], [], [])
    flat = [models for models in circuits if models.method == FLAT]
    deep = [models for models in circuits if models.method == DEEP]
    if not flat or not deep:
        return found
    x = test[: max(1, PIXELS // test.shape[1])]
    kinds = pixel_kinds(vqvae, x, levels)
    for models in (max(flat, key=lambda m: m.extent), min(deep, key=lambda m: m.extent)):
        circuit = models.model(models.largest)
        keys = models.keys(models.largest, models.main_weights) | {"n_images": len(x)}
        bits = bits_per_dimension(pixel_log_probs(circuit, x), 1, levels).cpu()  # [n, D]
        rows = (
            block_rows(circuit, x, vqvae.image_shape, levels),
            place_rows(bits, vqvae.image_shape),
            pixel_rows(bits, kinds),
        )
        for table, own in zip(found, rows, strict=True):
            table.extend(keys | row for row in own)
    return found


def block_rows(
    circuit: Circuit, x: Tensor, image_shape: tuple[int, int], levels: int
) -> Iterator[dict[str, float]]:
    """Bits per dimension of Π_block p(x_block), for blocks of 1, 2, 4, … pixels a side, until one
    holds the whole image."""
    for side in (2**n for n in range((max(image_shape) - 1).bit_length() + 1)):
        log_prob = log_marginals(circuit, x, blocks(image_shape, side)).sum(0).mean().item()
        yield {"block": side, "bpd": bits_per_dimension(log_prob, x.shape[1], levels)}


def place_rows(bits: Tensor, image_shape: tuple[int, int]) -> Iterator[dict[str, float]]:
    """Mean bits of the pixels of each square of an image, by its first row and column."""
    of_pixels = bits.mean(0)  # [D]
    for square in blocks(image_shape, max(1, max(image_shape) // SQUARES)):
        row, column = divmod(square.nonzero()[0].item(), image_shape[1])
        yield {"row": row, "column": column, "bits": of_pixels[square].mean().item()}


def pixel_rows(bits: Tensor, kinds: dict) -> Iterator[dict[str, object]]:
    """The part that each kind of pixels has in the bits per dimension, and in all pixels."""
    for (sigma, grey), pixels in kinds.items():
        part = torch.where(pixels, bits, 0.0).mean().item()
        share = pixels.double().mean().item()
        yield {"sigma": sigma, "grey": grey, "share": share, "bpd": part}


def pixel_log_probs(circuit: Circuit, x: Tensor) -> Tensor:
    """log p(x_d | x_1, …, x_d−1) [n, D] of images x [n, D], which sum to log p(x)."""
    n_variables = x.shape[1]
    before = torch.ones(n_variables + 1, n_variables, dtype=torch.bool).tril(-1)
    return log_marginals(circuit, x, before).diff(dim=0).T


def log_marginals(circuit: Circuit, x: Tensor, masks: Tensor) -> Tensor:
    """log p(x_o) [M, n] of few images x [n, D] under many masks [M, D].

    Of a mixture the log-densities of single pixels are computed once, and added up mask by mask.
    """
    if not isinstance(circuit, StreamedMixture):
        return circuit.marginals(x, masks)
    observed = masks.T.to(x.device).double()
    total = x.new_full((len(x), len(masks)), -torch.inf, dtype=torch.float64)
    for rows in torch.arange(circuit.n_components).split(COMPONENTS):
        chunk = slice(int(rows[0]), int(rows[-1]) + 1)
        means, log_stds = (p.double() for p in circuit.components.parameters(chunk))
        pixels = log_density(x[:, None].double(), means, log_stds)  # [n, chunk, D]
        terms = pixels @ observed + circuit.log_weights[chunk, None]
        total = torch.logaddexp(total, terms.logsumexp(1))
    return total.T


def blocks(image_shape: tuple[int, int], side: int) -> Tensor:
    """An image cut into squares: the pixels of each, as masks [M, D]."""
    height, width = image_shape
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    number = (rows[:, None] * width + columns).flatten()
    return number.unique()[:, None] == number


def pixel_kinds(vqvae: VQVAE, x: Tensor, levels: int) -> dict[tuple[float, str], Tensor]:
    """Which pixels [n, D] of images x are of a range of σ and of a grey, for those that there are.

    σ is the decoder's, of the codes of each image. Black is the lowest grey level, white the
    highest.
    """
    _, log_stds = vqvae.decode(vqvae.encode(x))
    ranges = torch.bucketize(log_stds.exp(), torch.tensor(SIGMAS[1:], device=x.device))
    value = (x * levels).floor()
    greys = 1 + (value >= levels - 1).long() - (value < 1).long()
    kinds = {
        (sigma, grey): (ranges == i) & (greys == j)
        for i, sigma in enumerate(SIGMAS)
        for j, grey in enumerate(GREYS)
    }
    return {kind: pixels.cpu() for kind, pixels in kinds.items() if pixels.any()}

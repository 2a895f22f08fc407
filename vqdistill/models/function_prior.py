"""A prior of one's own: any function that gives the next code's probabilities."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Beginnings(NamedTuple):
    """The codes so far [B, i] and the classes [B] of B grids."""

    codes: Tensor
    classes: Tensor


class FunctionPrior:
    """What selection methods ask of a prior p(z|c) = Π_i p(z_i | z_<i, c), from one function.

    next_codes(codes int64 [B, i], classes int64 [B]) gives log p(z_i = . | z_<i, c) [B, K] in nats,
    normalised or not; positions i are in row-major order. It is asked anew at each position: a
    prior that keeps what it computed, as PixelCNN does, is faster. `evaluations` counts evaluated
    p(z_i = k | z_<i, c).
    """

    def __init__(
        self,
        next_codes: Callable[[Tensor, Tensor], Tensor],
        codebook_size: int,
        grid: tuple[int, int],
        n_classes: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.next_codes, self.codebook_size, self.grid = next_codes, codebook_size, grid
        self.n_classes, self.device, self.evaluations = n_classes, torch.device(device), 0

    def begin(self, classes: Tensor) -> Beginnings:
        """Empty grids, one for each given class [B]."""
        return Beginnings(classes.new_zeros(len(classes), 0), classes)

    @torch.no_grad()
    def next_log_probs(self, beginnings: Beginnings) -> Tensor:
        """log p(z_i = . | z_<i, c) [B, K] float64, in nats."""
        self.evaluations += len(beginnings.codes) * self.codebook_size
        return self.next_codes(*beginnings).double().log_softmax(-1)

    def extend(self, beginnings: Beginnings, parents: Tensor, codes: Tensor) -> Beginnings:
        """Grids of one more code: row b is that of parents[b] and codes[b]; both int64 [B']."""
        longer = torch.cat([beginnings.codes[parents], codes[:, None]], dim=1)
        return Beginnings(longer, beginnings.classes[parents])

"""Observed pixels x_o of images, laid out for matrix products with the parameters of components.

Pixels are taken in cells, each observed under the same masks, of several that are asked at once.
Cells of the pixels that differ most between images come first, since they tell most of which
components are near.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.components import Chunk

IMAGE_BLOCK = 2048  # images at once, under one mask
CELL = 112  # pixels of a product: the fewer, the tighter the bound on its rounding error


class Block(NamedTuple):
    """Some consecutive images, laid out as what a chunk's parameters are multiplied with."""

    rows: slice
    x: Tensor  # [B, D]
    own_masks: Tensor | None  # [B, D], where each image has a mask of its own
    features: list[Tensor]  # of each cell [B, F], float32


class Evidence:
    """Observed pixels x_o of images: under M masks that all images share, or under a mask each.

    x: [B, D], zero where a pixel is observed under no mask; masks: bool [M, D] or None; own_masks:
    bool [B, D] or None, and then M = 1; cells: pixels of each; members: bool [M, cells]. Where all
    images share one mask, checks: after which numbers of cells components may be left out; seen:
    bool [cells, D], the pixels of the cells before each.
    """

    def __init__(self, x: Tensor, masks: Tensor | None, own_masks: Tensor | None = None) -> None:
        self.masks, self.own_masks = masks, own_masks
        if masks is None:
            masks = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
        if x.dtype != torch.float64:
            x = x.float()  # squares of a shorter type would be too far off
        self.x = torch.where(masks.any(0) if own_masks is None else own_masks, x, 0.0)
        spread = (self.x - self.x.mean(0)).square().sum(0)
        order = spread.argsort(descending=True, stable=True)
        patterns, index = masks[:, order].unique(dim=1, return_inverse=True)
        self.cells: list[Tensor] = []
        members = []
        for number, pattern in enumerate(patterns.T):
            cells = order[index == number].split(CELL) if pattern.any() else ()
            self.cells.extend(cells)
            members.extend([pattern] * len(cells))
        self.members = torch.stack(members, 1) if members else masks[:, :0]
        n_cells = len(self.cells) if own_masks is None and len(masks) == 1 else 0
        self.checks = [stop for stop in sorted({1, (n_cells + 1) // 2}) if stop < n_cells]
        self.seen = masks.new_zeros(n_cells, masks.shape[1])
        for number in range(1, n_cells):
            self.seen[number] = self.seen[number - 1]
            self.seen[number, self.cells[number - 1]] = True

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> list[Block]:
        """The images in blocks."""
        size = max(1, IMAGE_BLOCK // len(self.members))
        return [self._block(rows) for rows in blocks(len(self.x), size)]

    def _block(self, rows: slice) -> Block:
        x, own = self.x[rows], None if self.own_masks is None else self.own_masks[rows]
        return Block(rows, x, own, [f.float() for f in self.features(x, own)])

    def features(self, x: Tensor, own_masks: Tensor | None) -> list[Tensor]:
        """[x², x] of each cell's pixels, and the mask where each image has its own."""
        parts = [x.square(), x] if own_masks is None else [x.square(), x, own_masks.to(x)]
        return self._by_cell(parts)

    def weights(self, chunk: Chunk, dtype: torch.dtype) -> list[Tensor]:
        """What the features of each cell are multiplied with [n, F]."""
        parts = [chunk.quadratic, chunk.linear]
        if self.own_masks is not None:
            parts.append(chunk.constant)
        return self._by_cell([part.to(dtype) for part in parts])

    def _by_cell(self, parts: list[Tensor]) -> list[Tensor]:
        return [torch.cat([part.index_select(1, cell) for part in parts], 1) for cell in self.cells]

    def offsets(self, terms: Tensor) -> Tensor:
        """Σ over the observed pixels of terms [n, D] that depend on no image [M, n]."""
        if self.masks is None:
            return terms.sum(1)[None]
        return self.masks.to(terms) @ terms.T


def evidence(x: Tensor, observed: Tensor | None = None) -> Evidence:
    """Images [B, D] under no mask, one mask [D], or a mask each [B, D]."""
    if observed is not None and observed.ndim == 2:
        return Evidence(x, None, observed)
    if observed is None:
        observed = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    return Evidence(x, observed[None])


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cut 0 … n into blocks, one at least."""
    for start in range(0, max(n, 1), size):
        yield slice(start, min(start + size, n))


def rows_of(observed: Tensor | None, rows: slice) -> Tensor | None:
    """The masks of a block of images."""
    return observed if observed is None or observed.ndim == 1 else observed[rows]

"""Observed pixels x_o of images, laid out for matrix products with the parameters of components.

Pixels are taken in cells, each observed under the same masks, of several that are asked at once.
Cells of the pixels that tell most of which components are near come first.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from vqdistill.circuits.components import Components

IMAGE_BLOCK = 2048  # images at once
SCORED_ROWS = 4096  # images at once times masks
GPU_ROWS = 2**16  # images at once times masks
CELL = 112  # pixels after which components may be left out, where all images share one mask
GOLDEN_RATIO = (5**0.5 - 1) / 2
SAMPLE = 64  # images, and components, that pixels are ordered by
NEGLIGIBLE = 30.0  # nats below the largest term; 10^8 such terms change a sum by less than 1e-5


class Block:
    """Some consecutive images, laid out as what a chunk's parameters are multiplied with.

    x: [B, P]; own_masks: [B, P], where each image has a mask of its own, else None; features: of
    each cell [B, F], float32.
    """

    def __init__(self, known: "Evidence", rows: slice) -> None:
        self.known, self.rows, self.x = known, rows, known.x[rows]
        self.own_masks = None
        if known.own_masks is not None:
            self.own_masks = known.of_pixels(known.own_masks[rows])
        self.features = known.features(self.x.float(), self.own_masks)

    @cached_property
    def exact_features(self) -> list[Tensor]:
        """The features in float64."""
        return self.known.features(self.x.double(), self.own_masks)


class Evidence:
    """Observed pixels x_o of images: under M masks that all images share, or under a mask each.

    masks: bool [M, D] or None; own_masks: bool [B, D] or None, and then M = 1; pixels: [P], those
    observed under some mask, cell by cell; x: [B, P]; cells: slices of the P pixels; members: bool
    [M, cells]. Where all images share one mask, checks: after which numbers of cells components may
    be left out.
    """

    def __init__(
        self,
        x: Tensor,
        components: Components,
        masks: Tensor | None,
        own_masks: Tensor | None = None,
    ) -> None:
        self.masks, self.own_masks = masks, own_masks
        if masks is None:
            x = torch.where(own_masks, x, 0.0)
            masks = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
        if x.dtype != torch.float64:
            x = x.float()  # squares of a shorter type would be too far off
        order = nats_taken(x, components).argsort(descending=True, stable=True)
        patterns = torch.zeros_like(order)  # numbers of the columns of masks, equal for equal ones
        for mask in masks:
            patterns = (2 * patterns + mask[order]).unique(return_inverse=True)[1]
        cells, members = [order[:0]], [masks[:, :0]]
        shared = own_masks is None and len(masks) == 1
        size = CELL if shared else len(order)
        for number in patterns.unique():
            pixels = order[patterns == number]
            pattern = masks[:, pixels[:1]]
            parts = pixels.split(size) if pattern.any() else ()
            cells.extend(parts)
            members.append(pattern.expand(-1, len(parts)))
        self.pixels, self.members = torch.cat(cells), torch.cat(members, 1)
        self.x, self.cells, start = self.of_pixels(x), [], 0
        for cell in cells[1:]:
            self.cells.append(slice(start, start + len(cell)))
            start += len(cell)
        n_cells = len(self.cells) if shared else 0
        self.checks = [stop for stop in sorted({1, 2, (n_cells + 1) // 2}) if stop < n_cells]

    @cached_property
    def observed(self) -> Tensor:
        """The masks of the P pixels [M, P] float64, where images share them."""
        return self.masks[:, self.pixels].double()

    def __len__(self) -> int:
        return len(self.x)

    def of_pixels(self, values: Tensor) -> Tensor:
        """The observed pixels [n, P] of values [n, D]."""
        return values.gather(1, self.pixels.expand(len(values), -1))

    def blocks(self) -> list[Block]:
        """The images in blocks."""
        n_masks = len(self.members)
        on_cpu = min(IMAGE_BLOCK, SCORED_ROWS // n_masks)
        size = max(1, GPU_ROWS // n_masks if self.x.is_cuda else on_cpu)
        return [Block(self, rows) for rows in blocks(len(self.x), size)]

    def features(self, x: Tensor, own_masks: Tensor | None) -> list[Tensor]:
        """[x², −2x] of each cell's pixels [B, F], and the mask where each image has its own."""
        n_parts, of_cells = 2 if own_masks is None else 3, []
        for cell in self.cells:
            of_cell = x.new_empty(len(x), n_parts, cell.stop - cell.start)
            torch.square(x[:, cell], out=of_cell[:, 0])
            torch.mul(x[:, cell], -2, out=of_cell[:, 1])
            if own_masks is not None:
                of_cell[:, 2] = own_masks[:, cell]
            of_cells.append(of_cell.flatten(1))
        return of_cells

    def weights(self, quadratic: Tensor, linear: Tensor, constant: Tensor) -> list[Tensor]:
        """What the features of each cell are multiplied with [n, F], from terms [n, P]."""
        parts = [quadratic, linear] if self.own_masks is None else [quadratic, linear, constant]
        return [torch.cat([part[:, cell] for part in parts], 1) for cell in self.cells]

    def sums(self, terms: Tensor) -> Tensor:
        """Σ of terms [n, P] over the pixels of each cell [cells, n], float64."""
        sums = terms.new_empty(len(self.cells), len(terms), dtype=torch.float64)
        for cell, of_cell in zip(self.cells, sums, strict=True):
            torch.sum(terms[:, cell], 1, dtype=torch.float64, out=of_cell)
        return sums

    def by_mask(self, sums: Tensor) -> Tensor:
        """Σ over the observed pixels [M, n], from the sums of cells [cells, n]."""
        return self.members.to(sums) @ sums


def evidence(x: Tensor, components: Components, observed: Tensor | None = None) -> Evidence:
    """Images [B, D] under no mask, one mask [D], or a mask each [B, D]."""
    if observed is not None and observed.ndim == 2:
        return Evidence(x, components, None, observed)
    if observed is None:
        observed = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    return Evidence(x, components, observed[None])


def nats_taken(x: Tensor, components: Components) -> Tensor:
    """What each pixel [D] takes from the largest log-likelihood that a component can have.

    That is (x − μ)² / 2σ², here averaged over some images and components. More than `NEGLIGIBLE`
    nats count no more than that, for they already leave a component out.
    """
    x = x[_some(len(x), x.device)].float()
    means, log_stds = components.parameters(_some(len(components), x.device))
    nats = (x[:, None] - means).mul_(log_stds.neg().exp_()).square_().mul_(0.5)
    return nats.clamp_(max=NEGLIGIBLE).mean((0, 1))


def _some(n: int, device: torch.device) -> Tensor:
    """Up to `SAMPLE` of n numbers: far apart, and at no regular distance, as codes repeat."""
    if n <= SAMPLE:
        return torch.arange(n, device=device)
    parts = (torch.arange(SAMPLE, dtype=torch.float64) * GOLDEN_RATIO).frac()
    return (parts * n).long().to(device)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cut 0 … n into blocks, one at least."""
    for start in range(0, max(n, 1), size):
        yield slice(start, min(start + size, n))


def rows_of(observed: Tensor | None, rows: slice) -> Tensor | None:
    """The masks of a block of images."""
    return observed if observed is None or observed.ndim == 1 else observed[rows]

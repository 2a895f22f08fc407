"""A layer of a gated PixelCNN: masked convolutions of both stacks as matrix products.

Features stand with the channels last and a masked convolution is a matrix product, which is quick
where a grid is tiny: of whole rows where each position sees all columns, of gathered windows
elsewhere. Taps that a mask hides, or that no position of the grid reaches, are stored (and counted
as parameters, as in the published model) but never read.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_KERNEL = 7
KERNEL = 3


def gate(x: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the two halves of the channels: [..., 2d] -> [..., d]."""
    return Gate.apply(x)


class Gate(torch.autograd.Function):
    """The gate, with tanh(a) = 2 sigmoid(2a) - 1, a quarter of the time of the library's tanh and
    as exact beside 1; gradients of both halves are written into one tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        t, s = torch.sigmoid(2 * a).mul_(2).sub_(1), torch.sigmoid(b)
        ctx.save_for_backward(t, s)
        return t * s

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        t, s = ctx.saved_tensors
        result = gradient.new_empty(*gradient.shape[:-1], 2 * gradient.shape[-1])
        of_a, of_b = result.chunk(2, dim=-1)
        through_a = gradient * s
        through_b = through_a * t
        torch.addcmul(through_a, through_b, t, value=-1, out=of_a)  # g s (1 - t²)
        torch.addcmul(through_b, through_b, s, value=-1, out=of_b)  # g t s (1 - s)
        return result


def windows(x: Tensor, rows: range, columns: range) -> Tensor:
    """Features of the neighbours at the given offsets, zero outside the grid.

    x: [B, H, W, d] -> [B, H, W, len(rows) * len(columns) * d]
    """
    return Windows.apply(x, rows, columns)


class Windows(torch.autograd.Function):
    """Neighbours' features copied into one tensor, and gradients added back in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: range, columns: range) -> Tensor:
        ctx.offsets = rows, columns
        B, H, W, d = x.shape
        result = x.new_zeros(B, H, W, len(rows) * len(columns), d)
        for i, (here, there) in enumerate(neighbours(H, W, rows, columns)):
            result[:, *here, i] = x[:, *there]
        return result.flatten(3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.offsets
        B, H, W = gradient.shape[:3]
        of_offset = gradient.unflatten(3, (len(rows) * len(columns), -1))
        result = gradient.new_zeros(B, H, W, of_offset.shape[-1])
        for i, (here, there) in enumerate(neighbours(H, W, rows, columns)):
            result[:, *there] += of_offset[:, *here, i]
        return result, None, None


def neighbours(
    H: int, W: int, rows: range, columns: range
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each offset, the positions of a grid that have a neighbour there, and the neighbours."""
    for row, column in product(rows, columns):
        here = slice(max(0, -row), H - max(0, row)), slice(max(0, -column), W - max(0, column))
        there = slice(max(0, row), H + min(0, row)), slice(max(0, column), W + min(0, column))
        yield here, there


def row_matrix(taps: Tensor, W: int) -> Tensor:
    """The matrices that take rows of W positions to one row, from the taps at −(W − 1) … W − 1.

    taps: [e, rows, 2W - 1, d] -> [rows, W * d, W * e]: a Toeplitz matrix for each row
    """
    of_column = [taps[:, :, W - 1 - c : 2 * W - 1 - c] for c in range(W)]
    return torch.stack(of_column).permute(2, 3, 4, 0, 1).flatten(3).flatten(1, 2)


class GatedLayer(nn.Module):
    """One layer of both stacks: (vertical, horizontal) features in, the same out, [B, H, W, d].

    Mask A where `first`, with no residual connection; mask B otherwise. One class
    embedding (V^T c of Eq. 4) enters both gates. Offsets are cut to those that the grid can reach.
    """

    def __init__(self, width: int, grid: tuple[int, int], n_classes: int, first: bool):
        super().__init__()
        kernel = FIRST_KERNEL if first else KERNEL
        reach = kernel // 2
        self.first = first
        self.vertical = nn.Conv2d(width, 2 * width, (reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, reach + 1))
        self.to_horizontal = nn.Linear(2 * width, 2 * width)
        self.output = nn.Linear(width, width)
        self.classes = nn.Embedding(n_classes, 2 * width)
        end = 0 if first else 1
        self.above = range(-min(reach, grid[0] - 1), end)
        self.beside = range(-min(reach, grid[1] - 1), min(reach, grid[1] - 1) + 1)
        self.before = range(-min(reach, grid[1] - 1), end)
        self.sees_rows = reach >= grid[1] - 1  # each position all columns

    def vertical_weight(self) -> Tensor:
        """Weights of the taps in use, [2d, rows above, columns beside, d]."""
        reach = self.vertical.kernel_size[0] - 1
        rows = slice(reach + self.above.start, reach + self.above.stop)
        columns = slice(reach + self.beside.start, reach + self.beside.stop)
        return self.vertical.weight[:, :, rows, columns].permute(0, 2, 3, 1)

    def horizontal_weight(self) -> Tensor:
        """Weights of the taps in use, [2d, columns before, d]."""
        reach = self.horizontal.kernel_size[1] - 1
        columns = slice(reach + self.before.start, reach + self.before.stop)
        return self.horizontal.weight[:, :, 0, columns].permute(0, 2, 1)

    def forward(self, v: Tensor, h: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        of_class = self.classes(classes)  # [B, 2d]; biases are added to it, not to all positions
        rows, columns = self.rows_above(v), self.columns_before(h)
        of_rows = F.linear(rows, self.to_horizontal.weight)
        to_vertical = of_class + self.vertical.bias
        to_horizontal = of_class + self.horizontal.bias + self.to_horizontal(self.vertical.bias)
        out = self.output(gate(columns + of_rows + to_horizontal[:, None, None]))
        v = gate(rows + to_vertical[:, None, None])
        return v, out if self.first else out + h

    def rows_above(self, v: Tensor) -> Tensor:
        """The vertical convolution without its bias: [B, H, W, d] -> [B, H, W, 2d]."""
        weight = self.vertical_weight()
        if not self.sees_rows:
            return F.linear(windows(v, self.above, self.beside), weight.flatten(1))
        (B, H, W, _), channels = v.shape, len(weight)
        matrix = row_matrix(weight, W)  # [rows, W * d, W * 2d]
        result = []
        for row in range(H):
            first, stop = max(0, row + self.above.start), row + self.above.stop
            if first < stop:
                of_rows = matrix[first - stop :].flatten(0, 1)
                result.append(v[:, first:stop].flatten(1) @ of_rows)
            else:
                result.append(v.new_zeros(B, W * channels))
        return torch.stack(result, 1).unflatten(2, (W, channels))

    def columns_before(self, h: Tensor) -> Tensor:
        """The horizontal convolution without its bias: [B, H, W, d] -> [B, H, W, 2d]."""
        weight = self.horizontal_weight()
        if not self.sees_rows:
            return F.linear(windows(h, range(1), self.before), weight.flatten(1))
        W, channels = h.shape[2], len(weight)
        taps = F.pad(weight, (0, 0, 0, W - self.before.stop))[:, None]
        return (h.flatten(2) @ row_matrix(taps, W)[0]).unflatten(2, (W, channels))

"""The Poon–Domingos region graph over an image (Poon & Domingos 2011, Sect. 4).

The image is cut into square pieces. Every axis-aligned rectangle of pieces is a region, and every
cut of a rectangle into two rectangles is one of its partitions. Single pieces are the leaves.

A rectangle of a×b pieces has (a − 1) + (b − 1) partitions, and its longest way down to a leaf has
that same length, its depth. So all regions of one depth d can be evaluated together, and have
exactly d partitions each: no padding, no ragged indices.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vqdistill.errors import InputError

Rectangle = tuple[int, int, int, int]  # top, bottom, left, right, in pieces; ends are exclusive


@dataclass(frozen=True)
class Layer:
    """The regions of one depth d, numbered on from `start`, and their d partitions each."""

    start: int
    left: Tensor  # [regions, d] int64, the region number of a partition's first half
    right: Tensor  # [regions, d] int64, of its second half


@dataclass(frozen=True)
class RegionGraph:
    """Regions numbered by depth: first the leaves, row by row; the whole image is the last."""

    rectangles: list[Rectangle]  # by region number
    pixels: Tensor  # [leaves, pixels of a leaf] int64, row-major pixel numbers
    layers: list[Layer]  # depths 1, 2, ...; the last one holds the root alone

    @property
    def pixels_per_step(self) -> int:
        """The side of a piece."""
        return math.isqrt(self.pixels.shape[1])

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        _, height, _, width = self.rectangles[-1]
        return height * self.pixels_per_step, width * self.pixels_per_step

    @property
    def n_regions(self) -> int:
        return len(self.rectangles)

    @property
    def n_partitions(self) -> int:
        return sum(layer.left.numel() for layer in self.layers)


def poon_domingos(image_shape: tuple[int, int], pixels_per_step: int) -> RegionGraph:
    """The region graph of an image (height, width) cut every `pixels_per_step` pixels.

    Raises InputError unless the steps divide both sides and leave at least two pieces.
    """
    height, width = image_shape
    step = pixels_per_step
    if step < 1 or height % step or width % step or height * width <= step * step:
        raise InputError(
            f"pixels_per_step {step} for images of {height}×{width}: expected a divisor of both"
            " sides that leaves at least two pieces; choose another step"
        )
    rows, columns = height // step, width // step
    rectangles = sorted(_rectangles(rows, columns), key=_depth)  # stable: leaves stay row by row
    number = {rectangle: index for index, rectangle in enumerate(rectangles)}
    layers = [
        _layer([r for r in rectangles if _depth(r) == depth], number)
        for depth in range(1, rows + columns - 1)
    ]
    return RegionGraph(rectangles, _pixels(height, width, step), layers)


def _rectangles(rows: int, columns: int) -> list[Rectangle]:
    spans = [[(a, b) for a in range(n) for b in range(a + 1, n + 1)] for n in (rows, columns)]
    return [(*vertical, *horizontal) for vertical, horizontal in product(*spans)]


def _depth(rectangle: Rectangle) -> int:
    top, bottom, left, right = rectangle
    return bottom - top + right - left - 2


def _partitions(rectangle: Rectangle) -> list[tuple[Rectangle, Rectangle]]:
    top, bottom, left, right = rectangle
    horizontal = [
        ((top, cut, left, right), (cut, bottom, left, right)) for cut in range(top + 1, bottom)
    ]
    vertical = [
        ((top, bottom, left, cut), (top, bottom, cut, right)) for cut in range(left + 1, right)
    ]
    return horizontal + vertical


def _layer(rectangles: list[Rectangle], number: dict[Rectangle, int]) -> Layer:
    pairs = [[(number[a], number[b]) for a, b in _partitions(r)] for r in rectangles]
    halves = torch.tensor(pairs, dtype=torch.int64)  # [regions, d, 2]
    return Layer(number[rectangles[0]], halves[..., 0].contiguous(), halves[..., 1].contiguous())


def _pixels(height: int, width: int, step: int) -> Tensor:
    """The pixels of each piece [pieces, step²], both in row-major order."""
    grid = torch.arange(height * width).view(height // step, step, width // step, step)
    return grid.transpose(1, 2).reshape(-1, step * step)

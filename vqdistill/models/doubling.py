"""Convolutions of stride 2 and their transposes, quick for few channels and for few taps.

A 2×2 block of a transposed convolution's output depends on few positions of its input: the whole
is a convolution to four times as many channels, which are then the pixels of the blocks (Shi et al.
2016, https://arxiv.org/abs/1609.05158). With an even number of taps a side the products are the
same, but the libraries' take twice as long where output channels are few. A convolution's
gradient for its input is such a transpose; the other gradients are quick in the libraries. Taps
that don't overlap cover the finer maps by tiles, and either way is one matrix product.

That is for training on CPUs. On GPUs the libraries' are as quick, and a frozen model calls them,
too, as in `grid_convolution`.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

STRIDE = 2
EVEN, ODD = 16, 8  # output channels up to which blocks are quicker, by the number of taps a side
PLANES = 2  # channels up to which they are wanted one after the other, as those of an image


class Doubling(nn.ConvTranspose2d):
    """nn.ConvTranspose2d of stride 2: [B, C, H, W] maps."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.is_cuda or not self.weight.requires_grad:
            return super().forward(maps)
        if tiled(self, alone=maps.shape[2:] == (1, 1)) and self.output_padding == (0, 0):
            return from_tiles(maps, self.weight, self.bias)
        if not few(self, self.out_channels):
            return super().forward(maps)
        sides = tuple(
            STRIDE * (side - 1) + kernel + missing - 2 * p
            for side, kernel, p, missing in zip(
                maps.shape[2:], self.kernel_size, self.padding, self.output_padding, strict=True
            )
        )
        if self.out_channels <= PLANES:  # as quick with its own gradients
            return transposed(maps, self.weight, self.bias, self.padding, sides)
        maps = Transposed.apply(maps, self.weight, self.padding, sides)
        return maps if self.bias is None else maps + self.bias[:, None, None]


class Halving(nn.Conv2d):
    """nn.Conv2d of stride 2: [B, C, H, W] maps."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.is_cuda or not self.weight.requires_grad:
            return super().forward(maps)
        if tiled(self) and not any(side % STRIDE for side in maps.shape[2:]):
            return to_tiles(maps, self.weight, self.bias)
        if not (maps.requires_grad and few(self, self.in_channels)):
            return super().forward(maps)
        maps = Strided.apply(maps, self.weight, self.padding)
        return maps if self.bias is None else maps + self.bias[:, None, None]


class Transposed(torch.autograd.Function):
    """A transposed convolution by blocks; its gradients are convolutions of the library's."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: tuple, sides: tuple) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(maps, weight)
        return transposed(maps, weight, None, padding, sides)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = None
        if ctx.needs_input_grad[0]:
            of_maps = F.conv2d(gradient, weight, None, STRIDE, ctx.padding)
        of_weight = conv2d_weight(gradient, weight.shape, maps, STRIDE, ctx.padding)
        return of_maps, of_weight, None, None


class Strided(torch.autograd.Function):
    """The library's convolution; its gradient for the maps is a transposed one, by blocks."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: tuple) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(maps, weight)
        return F.conv2d(maps, weight, None, STRIDE, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, weight = ctx.saved_tensors
        of_maps = transposed(gradient, weight, None, ctx.padding, tuple(maps.shape[2:]))
        return of_maps, conv2d_weight(maps, weight.shape, gradient, STRIDE, ctx.padding), None


def tiled(layer: nn.Conv2d | nn.ConvTranspose2d, alone: bool = False) -> bool:
    """Whether the taps of all positions, or of one alone, are tiles without padding or overlap."""
    simple = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
    return simple and (alone or layer.stride == (STRIDE, STRIDE) == tuple(layer.kernel_size))


def to_tiles(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of maps [B, C, 2H, 2W], weight [out, C, 2, 2], as one matrix product."""
    rows = maps.permute(0, 2, 3, 1).unflatten(2, (-1, STRIDE)).unflatten(1, (-1, STRIDE))
    tiles = rows.transpose(2, 3).flatten(3)  # [B, H, W, 4C]
    return F.linear(tiles, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)


def from_tiles(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The transposed convolution of maps [B, C, H, W], weight [C, out, taps, taps], likewise."""
    n_rows, n_columns = weight.shape[2:]
    bias = None if bias is None else bias.repeat(n_rows * n_columns)
    of_tiles = weight.permute(2, 3, 1, 0).flatten(0, 2)  # [taps * taps * out, C]
    tiles = F.linear(maps.permute(0, 2, 3, 1), of_tiles, bias)
    tiles = tiles.unflatten(3, (n_rows, n_columns, -1)).transpose(
        2, 3
    )  # [B, H, taps, W, taps, out]
    return tiles.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def few(layer: nn.Conv2d | nn.ConvTranspose2d, channels: int) -> bool:
    """Whether blocks are quicker for so many output channels of the transposed convolution."""
    if layer.stride != (STRIDE, STRIDE) or layer.dilation != (1, 1) or layer.groups != 1:
        return False
    return channels <= (ODD if any(side % STRIDE for side in layer.kernel_size) else EVEN)


def transposed(
    maps: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple, sides: tuple
) -> Tensor:
    """The transposed convolution of maps [B, C, H, W], weight [C, out, taps, taps], by blocks."""
    margins = [reach(taps) - 1 for taps in weight.shape[2:]]
    short = [  # of pixels, where more are wanted than the taps reach
        max(0, p + wanted - STRIDE * (side + margin))
        for p, wanted, side, margin in zip(padding, sides, maps.shape[2:], margins, strict=True)
    ]
    if any(short):
        maps = F.pad(maps, (0, reach(short[1]), 0, reach(short[0])))
    of_blocks = block_weight(weight)  # [2, 2, out, C, …]
    bias = None if bias is None else bias.expand(STRIDE, STRIDE, -1)
    if weight.shape[1] > PLANES:
        bias = None if bias is None else bias.flatten()
        blocks = F.conv2d(maps, of_blocks.flatten(0, 2), bias, padding=margins)
        return pixels(blocks, padding, sides)
    of_blocks = of_blocks.permute(2, 0, 1, 3, 4, 5)
    bias = None if bias is None else bias.permute(2, 0, 1).flatten()
    blocks = F.conv2d(maps, of_blocks.flatten(0, 2), bias, padding=margins)
    return Planes.apply(blocks, padding, sides)


def reach(taps: int) -> int:
    """Positions of the input that a block depends on, along one side: as many as blocks of taps."""
    return -(-taps // STRIDE)


def block_weight(weight: Tensor) -> Tensor:
    """The weights of all pixels of a block: [C, out, taps, taps] -> [2, 2, out, C, …].

    Pixel a of a block takes tap a of its own position, tap 2 + a of the one before, and so on.
    """
    n_rows, n_columns = (reach(taps) for taps in weight.shape[2:])
    n_taps = weight.shape[2:]
    taps = F.pad(weight, (0, STRIDE * n_columns - n_taps[1], 0, STRIDE * n_rows - n_taps[0]))
    of_position = taps.unflatten(3, (n_columns, STRIDE)).unflatten(2, (n_rows, STRIDE)).flip(2, 4)
    return of_position.permute(3, 5, 1, 0, 2, 4)


def pixels(blocks: Tensor, padding: tuple, sides: tuple) -> Tensor:
    """The wanted pixels of blocks [B, 4C, H, W], a pixel's channels one after the other."""
    places = places_of(tuple(blocks.shape[2:]), tuple(padding), tuple(sides), blocks.device)
    of_positions = blocks.permute(0, 2, 3, 1).unflatten(3, (STRIDE**2, -1)).flatten(1, 3)
    return of_positions.index_select(1, places).unflatten(1, sides).permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)
def places_of(
    positions: tuple[int, int], padding: tuple, sides: tuple, device: torch.device
) -> Tensor:
    """Where the wanted pixels lie among those of all blocks, [H, W] of them: int64, row by row."""
    H, W = positions
    numbers = torch.arange(STRIDE**2 * H * W, device=device).view(H, W, STRIDE, STRIDE)
    numbers = numbers.transpose(1, 2).reshape(STRIDE * H, STRIDE * W)
    rows, columns = (slice(p, p + side) for p, side in zip(padding, sides, strict=True))
    return numbers[rows, columns].flatten()


class Planes(torch.autograd.Function):
    """The wanted pixels of blocks [B, C * 4, H, W], one channel after the other: [B, C, h, w].

    Two neighbours of a row are moved as one complex number.
    """

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, padding: tuple, sides: tuple) -> Tensor:
        ctx.padding, ctx.sides, ctx.shape = padding, sides, blocks.shape
        B, _, H, W = blocks.shape
        of_positions = blocks.permute(0, 2, 3, 1).contiguous().unflatten(3, (-1, STRIDE, STRIDE))
        pairs = torch.view_as_complex(of_positions)  # [B, H, W, C, 2]
        rows = torch.view_as_real(pairs.permute(0, 3, 1, 4, 2).contiguous())  # [B, C, H, 2, W, 2]
        inside = tuple(slice(p, p + side) for p, side in zip(padding, sides, strict=True))
        return rows.view(B, -1, STRIDE * H, STRIDE * W)[:, :, *inside].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (B, _, H, W), (above, left), width = ctx.shape, ctx.padding, ctx.sides[1]
        rows = gradient.new_zeros(B, gradient.shape[1], STRIDE, H, STRIDE * W)
        for row in range(STRIDE):  # of a block
            first = (row - above) % STRIDE
            of_row, start = gradient[:, :, first::STRIDE], (first + above) // STRIDE
            rows[:, :, row, start : start + of_row.shape[2], left : left + width] = of_row
        pairs = torch.view_as_complex(rows.unflatten(4, (W, STRIDE))).flatten(1, 2)  # [B, 2C, H, W]
        of_positions = torch.view_as_real(torch.stack(pairs.unbind(1), 3)).flatten(3)
        return of_positions.permute(0, 3, 1, 2), None, None

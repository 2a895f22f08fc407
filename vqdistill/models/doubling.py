"""Transposed convolutions of stride 2, quick for few output channels.

A 2×2 block of the output depends on 2×2 positions of the input: the whole is a 2×2 convolution to
four times as many channels, which are then the pixels of the blocks (Shi et al. 2016,
https://arxiv.org/abs/1609.05158). With four taps a side the products are the same, but to the two
channels of an image, means and deviations, the libraries' take twice as long.

That is for training on CPUs. On GPUs the libraries' are as quick, and a trained model is evaluated
by them, as in `grid_convolution`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 2
TAPS = 4


class Doubling(nn.ConvTranspose2d):
    """nn.ConvTranspose2d of stride 2 and at most 4×4 taps, with a bias: [B, C, H, W] maps."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.is_cuda or not self.training:
            return super().forward(maps)
        blocks = F.conv2d(maps, self.block_weight(), self.bias.repeat(STRIDE**2), padding=1)
        rows, columns = (
            slice(p, p + STRIDE * (side - 1) + kernel + missing - 2 * p)
            for side, kernel, p, missing in zip(
                maps.shape[2:], self.kernel_size, self.padding, self.output_padding, strict=True
            )
        )
        return pixels(blocks)[:, :, rows, columns]

    def block_weight(self) -> Tensor:
        """The weights of all pixels of a block, row by row: [4 * out, C, 2, 2].

        Pixel a of a block takes tap 2 + a of the position before it and tap a of its own.
        """
        missing = [TAPS - kernel for kernel in self.kernel_size]
        taps = F.pad(self.weight, (0, missing[1], 0, missing[0]))  # [C, out, 4, 4]
        of_position = taps.unflatten(3, (2, STRIDE)).unflatten(2, (2, STRIDE)).flip(2, 4)
        return of_position.permute(3, 5, 1, 0, 2, 4).flatten(0, 2)


def pixels(blocks: Tensor) -> Tensor:
    """The channels of each position as a block of pixels: [B, 4C, H, W] -> [B, C, 2H, 2W]."""
    B, _, H, W = blocks.shape
    of_block = blocks.view(B, STRIDE, STRIDE, -1, H, W).permute(0, 3, 4, 1, 5, 2)
    return of_block.reshape(B, -1, STRIDE * H, STRIDE * W)

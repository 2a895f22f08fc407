"""Convolutions of small grids as matrix products: 3×3 with fewer multiplications, and 1×1.

Winograd 1980; Lavin & Gray 2016, https://arxiv.org/abs/1509.09308: a convolution of n values with
three taps is a product of polynomials, taken at n + 2 points. Two values padded by zeros need but
three products (Karatsuba). Between a transform of the inputs, one of the taps and one of the
products stand 36 products of matrices on 4×4 and 9 on 2×2, where all taps at all positions would be
144 and 36. It is exact in exact arithmetic; the points are chosen so that rounding in float32 is at
most some 2.5 times that of a sum of the terms one after the other.

That is for training, also on GPUs, where cuDNN without TF32 takes up to twice as long for a step. A
frozen model, one whose parameters ask for no gradient, sums over the taps, which rounds less.
"""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 3
ROOT_HALF, ROOT_TWO = math.sqrt(0.5), math.sqrt(2.0)
POINTS_OF_FOUR = (0.0, ROOT_HALF, -ROOT_HALF, ROOT_TWO, -ROOT_TWO)  # and ∞


class GridConvolution(nn.Conv2d):
    """A 3×3 convolution, padded by zeros, of features [H*W, B, C] on a grid of sides 2 or 4."""

    def __init__(self, grid: tuple[int, int], channels: int):
        super().__init__(channels, channels, TAPS, padding=1, bias=False)
        self.grid = tuple(grid)
        by_tap = self.weight.detach().permute(2, 3, 1, 0).contiguous()  # as the products read them
        self.weight = nn.Parameter(by_tap.permute(3, 2, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight.requires_grad:
            return self.over_taps(x)
        P, B, C = x.shape
        of_inputs, of_taps, to_outputs = transforms(self.grid, x.dtype, x.device)
        inputs = of_inputs @ x.reshape(P, B * C)  # [T, B*C]
        taps = of_taps @ self.weight.permute(2, 3, 1, 0).reshape(TAPS**2, C * C)
        products = torch.bmm(inputs.view(-1, B, C), taps.view(-1, C, C))  # [T, B, C]
        return (to_outputs @ products.flatten(1)).view(P, B, C)

    def over_taps(self, x: Tensor) -> Tensor:
        """The plain convolution of features [H*W, B, C]."""
        maps = super().forward(maps_of(x, self.grid))
        return maps.flatten(2).permute(2, 0, 1).contiguous()


class Pointwise(nn.Linear):
    """A 1×1 convolution of features [n, C]; that of a frozen model on a GPU is cuDNN's, which no
    setting of matrix products turns into TF32."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and not self.weight.requires_grad:
            return F.conv2d(x[:, :, None, None], self.weight[:, :, None, None])[:, :, 0, 0]
        return super().forward(x)


def maps_of(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features [H*W, B, C] as maps [B, C, H, W], channels last, also where B is 1."""
    rows = features.transpose(0, 1).contiguous()  # [B, H*W, C]
    return rows.view(len(rows), *grid, -1).permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)
def transforms(
    grid: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of inputs [T, H*W], of taps [T, 9] and to outputs [H*W, T]."""
    down, across = (side_transforms(side) for side in grid)
    return tuple(
        torch.tensor(np.kron(of_rows, of_columns), dtype=dtype, device=device)
        for of_rows, of_columns in zip(down, across, strict=True)
    )


def side_transforms(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The transforms of a row of n values: [T, n], [T, 3] and [n, T], with T products."""
    return karatsuba() if n == 2 else toom_cook(n, POINTS_OF_FOUR)


def karatsuba() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of two values: y_0 = t_1 (x_0 + x_1) + (t_2 - t_1) x_1, y_1 = t_1 (…) + (t_0 - t_1) x_0."""
    of_values = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    of_taps = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, -1.0, 0.0]])
    return of_values, of_taps, np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])


def toom_cook(n: int, points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of n values, by n + 2 points: those given and ∞.

    With V_m the powers 0 … m - 1 of the points, a product of polynomials a and b has the
    coefficients V⁻¹(V_n a · V_3 b). A correlation is its transpose in a: V_nᵀ(V⁻ᵀ x · V_3 b). The
    padding is zero, so that its two columns of V⁻ᵀ are left out.
    """
    size = n + TAPS - 1

    def powers(m: int) -> np.ndarray:
        finite = np.vander(points, m, increasing=True)
        return np.vstack([finite, np.eye(m)[-1]])  # ∞: the leading coefficient

    of_padded = np.linalg.inv(powers(size)).T
    return of_padded[:, 1:-1], powers(TAPS), powers(n).T

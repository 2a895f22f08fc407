"""Class-conditional gated PixelCNN: the prior p(z|c) of a VQ-VAE over a small grid of codes.

Conditional Image Generation with PixelCNN Decoders, van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328, Fig. 2 and Eq. 4-5.

    p(z|c) = prod_i p(z_i | z_<i, c),  i in row-major order

Two stacks of masked convolutions run over the embedded codes. The vertical stack sees the rows
above, the horizontal stack the codes to the left and, through a 1x1 convolution, the vertical
stack. Only the first layer needs mask A (it hides the row, or the code, itself): what the later
layers see at a position then depends on earlier codes only.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.errors import InputError
from vqdistill.models import prefixes as incremental
from vqdistill.models.prefixes import gate
from vqdistill.settings import Prior

FIRST_KERNEL = 7
KERNEL = 3
CONDITIONALS_AT_ONCE = 2**20  # of a full pass


class PixelCNN(nn.Module):
    """Gated PixelCNN over an H x W grid of codes; a prior of `distillation`.

    `evaluations` counts every evaluated p(z_i = k | z_<i, c) outside of training: K a prefix,
    H * W * K a full grid.
    """

    def __init__(self, settings: Prior, n_classes: int):
        super().__init__()
        self.codebook_size, self.grid = settings.codebook_size, settings.grid
        self.n_classes = n_classes
        self.tf32 = ("convolutions", "products") if settings.tf32 else ()
        self.evaluations = 0
        width = settings.width
        self.embedding = nn.Embedding(settings.codebook_size, width)
        self.layers = nn.ModuleList(
            GatedLayer(width, self.grid, n_classes, first=i == 0) for i in range(settings.layers)
        )
        self.head = nn.Sequential(
            nn.Linear(width, settings.head), nn.ReLU(), nn.Linear(settings.head, self.codebook_size)
        )
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Logits of all conditionals: codes [B, H, W], classes [B] -> [B, H, W, K]."""
        v = h = self.embedding(codes)  # [B, H, W, d]
        for layer in self.layers:
            v, h = layer(v, h, classes)
        return self.head(h)

    def loss(
        self, codes: Tensor, classes: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of -log p(z_i | z_<i, c) over grids and positions, nats per code.

        codes: int64 [B, H, W], classes: int64 [B]. Nothing is random: the generator is not used.
        """
        loss = F.cross_entropy(self(codes, classes).flatten(0, 2), codes.flatten())
        return loss, {"nats_per_code": loss.detach()}

    @torch.no_grad()
    def log_prob(self, codes: Tensor, classes: Tensor) -> Tensor:
        """log p(z|c) in nats, a full pass in chunks: codes [B, H, W], classes [B] -> [B] float64.

        Raises InputError where the codes are of another grid.
        """
        if codes.shape[1:] != self.grid:
            found = tuple(codes.shape[1:])
            raise InputError(
                f"PixelCNN: codes of grid {found}, expected {self.grid}; take the codes of the "
                "VQ-VAE that this prior was trained on"
            )
        self.evaluations += codes.numel() * self.codebook_size
        chunk = max(1, CONDITIONALS_AT_ONCE // (math.prod(self.grid) * self.codebook_size))
        totals = []
        for z, c in zip(codes.split(chunk), classes.split(chunk), strict=True):
            log_probs = self(z, c).double().log_softmax(-1)  # [B, H, W, K]
            totals.append(log_probs.gather(-1, z[..., None]).sum((1, 2, 3)))
        return torch.cat(totals)

    # Incremental evaluation: one position at a time, each computed once.

    @torch.no_grad()
    def begin(self, classes: Tensor) -> incremental.Prefixes:
        """Empty prefixes, one for each given class [B]."""
        return incremental.begin(self, classes)

    @torch.no_grad()
    def next_log_probs(self, prefixes: incremental.Prefixes) -> Tensor:
        """log p(z_i = . | z_<i, c) in nats, normalised in float64: [B, K]."""
        self.evaluations += len(prefixes.codes) * self.codebook_size
        return self.head(prefixes.features[:, -1]).double().log_softmax(-1)

    @torch.no_grad()
    def extend(
        self, prefixes: incremental.Prefixes, parents: Tensor, codes: Tensor
    ) -> incremental.Prefixes:
        """Prefixes of one more code: row b is prefix parents[b] and codes[b]; both int64 [B'].

        Parents may repeat or be dropped. The memory that the result takes grows with B'.
        """
        return incremental.extend(self, prefixes, parents, codes)


class GatedLayer(nn.Module):
    """One layer of both stacks: (vertical, horizontal) features in, the same out, [B, H, W, d].

    Mask A where `first`, with no residual connection; mask B otherwise. One class embedding
    (V^T c of Eq. 4) enters both gates. Taps that a mask hides, or that no position of the grid
    reaches, are stored (and counted as parameters, as in the published model) but never read.
    """

    def __init__(self, width: int, grid: tuple[int, int], n_classes: int, first: bool):
        super().__init__()
        kernel = FIRST_KERNEL if first else KERNEL
        self.first, self.reach = first, kernel // 2
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.to_horizontal = nn.Linear(2 * width, 2 * width)
        self.output = nn.Linear(width, width)
        self.classes = nn.Embedding(n_classes, 2 * width)
        end = 0 if first else 1
        rows, columns = (min(self.reach, side - 1) for side in grid)
        self.above = range(-rows, end)  # offsets of the taps in use
        self.beside = range(-columns, columns + 1)
        self.before = range(-columns, end)

    def vertical_weight(self) -> Tensor:
        """Weights of the taps in use, [2d, d, rows above, columns beside]."""
        rows, columns = (
            slice(self.reach + used.start, self.reach + used.stop)
            for used in (self.above, self.beside)
        )
        return self.vertical.weight[:, :, rows, columns]

    def horizontal_weight(self) -> Tensor:
        """Weights of the taps in use, [2d, d, 1, columns before]."""
        columns = slice(self.reach + self.before.start, self.reach + self.before.stop)
        return self.horizontal.weight[..., columns]

    def forward(self, v: Tensor, h: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        of_class = self.classes(classes)[:, None, None]  # [B, 1, 1, 2d]
        rows = convolved(v, self.vertical_weight(), self.vertical.bias, self.above, self.beside)
        columns = convolved(
            h, self.horizontal_weight(), self.horizontal.bias, range(1), self.before
        )
        out = self.output(gate(columns + self.to_horizontal(rows) + of_class))
        return gate(rows + of_class), out if self.first else out + h


def convolved(x: Tensor, weight: Tensor, bias: Tensor, rows: range, columns: range) -> Tensor:
    """Features x [B, H, W, d] convolved with taps at these offsets, zero outside the grid.

    weight: [e, d, rows, columns] -> [B, H, W, e]
    """
    if not weight.numel():  # a grid of one row, and nothing above it
        return bias.expand(*x.shape[:3], -1)
    padding = (-columns.start, columns.stop - 1, -rows.start, rows.stop - 1)
    maps = F.pad(x.permute(0, 3, 1, 2), padding)  # an offset that ends before 0 crops
    return F.conv2d(maps, weight, bias).permute(0, 2, 3, 1)

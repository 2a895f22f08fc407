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
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.data import N_CLASSES
from vqdistill.errors import InputError
from vqdistill.models.gated_layer import KERNEL, GatedLayer, gate, windows
from vqdistill.models.settings import model_settings, parse_grid, settings_from
from vqdistill.models.softmax import cross_entropy

CHUNK_BYTES = 2**24  # of a full pass over some grids: what a core's caches hold, roughly
CHUNK_POSITIONS = 1024  # at least, so that reading the weights doesn't count
ROW_CHUNK = 1024  # prefixes whose vertical stack is computed at once


@dataclass(frozen=True)
class PixelCNNSettings:
    """`width` channels of the stacks, number of `layers`, hidden channels of the `head`."""

    width: int = 256
    layers: int = 10
    head: int = 512


@dataclass(frozen=True)
class RowCache:
    """The vertical stack in one row of the grid, for R prefixes that end where the row begins."""

    vertical: Tensor  # [R, layers - 1, W, d]     features, which the next row looks at
    horizontal: Tensor  # [R, layers, W, 2d]      all that enters the horizontal gate but its taps


@dataclass(frozen=True)
class Prefixes:
    """B beginnings z_<i of grids, with what their later positions can see of them."""

    codes: Tensor  # int64 [B, i]
    classes: Tensor  # int64 [B]
    weights: list[tuple[Tensor, Tensor]]  # unfolded (vertical, horizontal) weights of each layer
    row: RowCache  # of the row of position i
    row_of: Tensor  # int64 [B]                   the prefix's entry in `row`: siblings share one
    features: Tensor  # [B, layers, d]            horizontal stack at position i; empty at the end


class PixelCNN(nn.Module):
    """Gated PixelCNN over an H x W grid of codes; fulfils the prior contract of `distillation`.

    codebook_size K, grid (H, W), n_classes C. `evaluations` counts every evaluated
    p(z_i = k | z_<i, c) outside of training: K a prefix, H * W * K a full grid.

    Raises InputError where a size is below one.
    """

    def __init__(
        self,
        codebook_size: int,
        grid: tuple[int, int],
        n_classes: int,
        settings: PixelCNNSettings,
    ):
        super().__init__()
        sizes = {"codebook_size": codebook_size, "n_classes": n_classes, **vars(settings)}
        sizes |= {"grid height": grid[0], "grid width": grid[1]}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"PixelCNN: {name} is {size}, expected 1 or more; raise it")
        self.codebook_size, self.grid, self.n_classes = codebook_size, tuple(grid), n_classes
        self.evaluations = 0
        width = settings.width
        self.embedding = nn.Embedding(codebook_size, width)
        self.layers = nn.ModuleList(
            GatedLayer(width, self.grid, n_classes, first=i == 0) for i in range(settings.layers)
        )
        self.head = nn.Sequential(
            nn.Linear(width, settings.head), nn.ReLU(), nn.Linear(settings.head, codebook_size)
        )

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Logits of all conditionals: codes [B, H, W], classes [B] -> [B, H, W, K]."""
        v = h = self.embedding(codes)
        for layer in self.layers:
            v, h = layer(v, h, classes)
        return self.head(h)

    def loss(
        self, codes: Tensor, classes: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of -log p(z_i | z_<i, c) over grids and positions, nats per code.

        codes: int64 [B, H, W], classes: int64 [B]. Nothing is random: the generator is not used.
        """
        logits = self(codes, classes)
        loss = cross_entropy(logits.flatten(0, 2), codes.flatten())
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
        n_positions = math.prod(self.grid)
        features = 4 * 2 * (KERNEL // 2 + 1) * KERNEL * self.embedding.embedding_dim  # windows
        bytes_each = n_positions * (features + 2 * 4 * self.codebook_size)
        chunk = max(CHUNK_BYTES // bytes_each, math.ceil(CHUNK_POSITIONS / n_positions))
        totals = [
            self.grid_log_probs(z, c)
            for z, c in zip(codes.split(chunk), classes.split(chunk), strict=True)
        ]
        self.evaluations += codes.numel() * self.codebook_size
        return torch.cat(totals)

    def grid_log_probs(self, codes: Tensor, classes: Tensor) -> Tensor:
        """log p(z|c) of one chunk; the sum over the K codes of each position is in float64."""
        logits = self(codes, classes)  # [B, H, W, K]
        chosen, top = logits.gather(-1, codes[..., None]), logits.amax(-1, keepdim=True)
        total = logits.sub_(top).exp_().sum(-1, dtype=torch.float64).log()
        return ((chosen.double() - top.double()).squeeze(-1) - total).sum((1, 2))

    # Incremental evaluation: one position at a time, each computed once.

    @torch.no_grad()
    def begin(self, classes: Tensor) -> Prefixes:
        """Empty prefixes, one for each given class [B]. The first row depends on the class only."""
        weights = [
            (layer.vertical_weight().contiguous(), layer.horizontal_weight().contiguous())
            for layer in self.layers
        ]
        every_class = torch.arange(self.n_classes, device=classes.device)
        nothing = every_class.new_zeros(self.n_classes, 0)
        row = self.start_row(weights, nothing, every_class, None)
        codes = classes.new_zeros(len(classes), 0)
        features = self.position_features(weights, row, classes, codes, None)
        return Prefixes(codes, classes, weights, row, classes, features)

    @torch.no_grad()
    def next_log_probs(self, prefixes: Prefixes) -> Tensor:
        """log p(z_i = . | z_<i, c) in nats, normalised in float64: [B, K]."""
        self.evaluations += len(prefixes.codes) * self.codebook_size
        return self.head(prefixes.features[:, -1]).double().log_softmax(-1)

    @torch.no_grad()
    def extend(self, prefixes: Prefixes, parents: Tensor, codes: Tensor) -> Prefixes:
        """Prefixes of one more code: row b is prefix parents[b] and codes[b]; both int64 [B'].

        Parents may repeat or be dropped. The memory that the result takes grows with B'.
        """
        H, W = self.grid
        weights, row = prefixes.weights, prefixes.row
        row_of, classes = prefixes.row_of[parents], prefixes.classes[parents]
        codes = torch.cat([prefixes.codes[parents], codes[:, None]], dim=1)  # [B', i]
        column = codes.shape[1] % W
        if codes.shape[1] == H * W:
            features = prefixes.features[:0]
        elif column:
            left = prefixes.features[parents]
            features = self.position_features(weights, row, row_of, codes[:, -column:], left)
        else:
            row = self.start_row(weights, codes, classes, (row, row_of))
            row_of = torch.arange(len(codes), device=codes.device)
            features = self.position_features(weights, row, row_of, codes[:, :0], None)
        return Prefixes(codes, classes, weights, row, row_of, features)

    def start_row(
        self,
        weights: list[tuple[Tensor, Tensor]],
        codes: Tensor,
        classes: Tensor,
        above: tuple[RowCache, Tensor] | None,
    ) -> RowCache:
        """The vertical stack in the row after codes [R, rows * W].

        above: the cache of the row before and each prefix's entry in it [R]; None in the first.
        """
        W, d = self.grid[1], self.embedding.embedding_dim
        R, n_layers, new = len(codes), len(self.layers), self.embedding.weight.new_empty
        row = RowCache(new(R, n_layers - 1, W, d), new(R, n_layers, W, 2 * d))
        for part in torch.arange(R, device=codes.device).split(ROW_CHUNK):
            before = None if above is None else above[0].vertical[above[1][part]]
            part_rows = codes[part].unflatten(1, (-1, W)) if codes.shape[1] else None
            self.fill_rows(weights, part_rows, classes[part], before, row, part)
        return row

    def fill_rows(
        self,
        weights: list[tuple[Tensor, Tensor]],
        codes: Tensor | None,
        classes: Tensor,
        before: Tensor | None,
        row: RowCache,
        part: Tensor,
    ) -> None:
        """Fills row[part] from codes [R, rows, W] and the row before [R, layers - 1, W, d]."""
        v = None
        for i, layer in enumerate(self.layers):
            of_class = layer.classes(classes)[:, None]  # [R, 1, 2d]
            if i == 0:
                seen = None if codes is None else self.embedding(codes[:, -len(layer.above) :])
            else:
                seen = v[:, None] if before is None else torch.stack([before[:, i - 1], v], 1)
            rows = layer.vertical.bias.expand(len(classes), self.grid[1], -1)  # [R, W, 2d]
            if seen is not None:
                taps = windows(seen, range(1), layer.beside)  # [R, rows, W, beside * d]
                weight = weights[i][0][:, -seen.shape[1] :].flatten(1)
                rows = F.linear(taps.transpose(1, 2).flatten(2), weight, layer.vertical.bias)
            row.horizontal[part, i] = layer.to_horizontal(rows) + of_class + layer.horizontal.bias
            if i < len(self.layers) - 1:
                v = gate(rows + of_class)
                row.vertical[part, i] = v

    def position_features(
        self,
        weights: list[tuple[Tensor, Tensor]],
        row: RowCache,
        row_of: Tensor,
        codes: Tensor,
        left: Tensor | None,
    ) -> Tensor:
        """The horizontal stack at the next position: [B, layers, d].

        codes: those of this row so far [B, column]; left: the features of the position before,
        [B, layers, d], None at the beginning of a row.
        """
        column = codes.shape[1]
        features = []
        for i, layer in enumerate(self.layers):
            if i == 0:
                seen = [self.embedding(codes[:, -len(layer.before) :]).flatten(1)] if column else []
            else:
                seen = [features[-1]] if left is None else [left[:, i - 1], features[-1]]
            x = row.horizontal[row_of, i, column]  # [B, 2d]
            if seen:
                taps = torch.cat(seen, dim=1)
                x = x + F.linear(taps, weights[i][1].flatten(1)[:, -taps.shape[1] :])
            out = layer.output(gate(x))
            features.append(out if i == 0 else out + features[-1])
        return torch.stack(features, dim=1)


def build_prior(image_shape: tuple[int, int], settings: dict[str, Any]) -> PixelCNN:
    """An untrained prior with the settings of train_prior; it does not depend on the images."""
    grid, codebook_size = parse_grid(settings["grid"]), settings["codebook_size"]
    of_vqvae = ("grid", "codebook_size")
    sizes = {k: v for k, v in model_settings(settings).items() if k not in of_vqvae}
    return PixelCNN(codebook_size, grid, N_CLASSES, settings_from(PixelCNNSettings, sizes, "prior"))

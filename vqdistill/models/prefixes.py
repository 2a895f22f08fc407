"""Incremental evaluation of a PixelCNN: beginnings of grids that grow by one code at a time.

A full pass computes every position of every grid. Here each position of each beginning is computed
once: what later positions can see of it is kept. The vertical stack of a row depends on the rows
above only, so that all beginnings that agree up to the row share it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_CHUNK = 1024  # prefixes whose vertical stack is computed at once


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
    weights: list[tuple[Tensor, Tensor]]  # of the (vertical, horizontal) taps of each layer
    row: RowCache  # of the row of position i
    row_of: Tensor  # int64 [B]                   the prefix's entry in `row`: siblings share one
    features: Tensor  # [B, layers, d]            horizontal stack at position i; empty at the end


def begin(prior, classes: Tensor) -> Prefixes:
    """Empty prefixes, one for each given class [B]. The first row depends on the class only."""
    weights = [
        (
            layer.vertical_weight().permute(0, 2, 3, 1).contiguous(),  # [2d, rows, beside, d]
            layer.horizontal_weight().permute(0, 2, 3, 1).flatten(1),  # [2d, before * d]
        )
        for layer in prior.layers
    ]
    every_class = torch.arange(prior.n_classes, device=classes.device)
    nothing = every_class.new_zeros(prior.n_classes, 0)
    row = start_row(prior, weights, nothing, every_class, None)
    codes = classes.new_zeros(len(classes), 0)
    features = position_features(prior, weights, row, classes, codes, None)
    return Prefixes(codes, classes, weights, row, classes, features)


def extend(prior, prefixes: Prefixes, parents: Tensor, codes: Tensor) -> Prefixes:
    """Prefixes of one more code: row b is prefix parents[b] and codes[b]; both int64 [B']."""
    H, W = prior.grid
    weights, row = prefixes.weights, prefixes.row
    row_of, classes = prefixes.row_of[parents], prefixes.classes[parents]
    codes = torch.cat([prefixes.codes[parents], codes[:, None]], dim=1)  # [B', i]
    column = codes.shape[1] % W
    if codes.shape[1] == H * W:
        features = prefixes.features[:0]
    elif column:
        left = prefixes.features[parents]
        features = position_features(prior, weights, row, row_of, codes[:, -column:], left)
    else:
        row = start_row(prior, weights, codes, classes, (row, row_of))
        row_of = torch.arange(len(codes), device=codes.device)
        features = position_features(prior, weights, row, row_of, codes[:, :0], None)
    return Prefixes(codes, classes, weights, row, row_of, features)


def start_row(
    prior,
    weights: list[tuple[Tensor, Tensor]],
    codes: Tensor,
    classes: Tensor,
    above: tuple[RowCache, Tensor] | None,
) -> RowCache:
    """The vertical stack in the row after codes [R, rows * W].

    above: the cache of the row before and each prefix's entry in it [R]; None in the first.
    """
    W, d = prior.grid[1], prior.embedding.embedding_dim
    R, n_layers, new = len(codes), len(prior.layers), prior.embedding.weight.new_empty
    row = RowCache(new(R, n_layers - 1, W, d), new(R, n_layers, W, 2 * d))
    for part in torch.arange(R, device=codes.device).split(ROW_CHUNK):
        before = None if above is None else above[0].vertical[above[1][part]]
        rows = codes[part].unflatten(1, (-1, W)) if codes.shape[1] else None
        fill_rows(prior, weights, rows, classes[part], before, row, part)
    return row


def fill_rows(
    prior,
    weights: list[tuple[Tensor, Tensor]],
    codes: Tensor | None,
    classes: Tensor,
    before: Tensor | None,
    row: RowCache,
    part: Tensor,
) -> None:
    """Fills row[part] from codes [R, rows, W] and the row before [R, layers - 1, W, d]."""
    v = None
    for i, layer in enumerate(prior.layers):
        of_class = layer.classes(classes)[:, None]  # [R, 1, 2d]
        if i == 0:
            seen = None if codes is None else prior.embedding(codes[:, -len(layer.above) :])
        else:
            seen = v[:, None] if before is None else torch.stack([before[:, i - 1], v], 1)
        rows = layer.vertical.bias.expand(len(classes), prior.grid[1], -1)  # [R, W, 2d]
        if seen is not None:
            weight = weights[i][0][:, -seen.shape[1] :].flatten(1)
            columns = len(layer.beside)
            padded = F.pad(seen, (0, 0, columns // 2, columns // 2))  # [R, rows, columns, d]
            taps = padded.unfold(2, columns, 1).permute(0, 2, 1, 4, 3)  # [R, W, rows, beside, d]
            rows = F.linear(taps.flatten(2), weight, layer.vertical.bias)
        row.horizontal[part, i] = layer.to_horizontal(rows) + of_class + layer.horizontal.bias
        if i < len(prior.layers) - 1:
            v = gate(rows + of_class)
            row.vertical[part, i] = v


def position_features(
    prior,
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
    for i, layer in enumerate(prior.layers):
        if i == 0:
            seen = [prior.embedding(codes[:, -len(layer.before) :]).flatten(1)] if column else []
        else:
            seen = [features[-1]] if left is None else [left[:, i - 1], features[-1]]
        x = row.horizontal[row_of, i, column]  # [B, 2d]
        if seen:
            taps = torch.cat(seen, dim=1)
            x = x + F.linear(taps, weights[i][1][:, -taps.shape[1] :])
        out = layer.output(gate(x))
        features.append(out if i == 0 else out + features[-1])
    return torch.stack(features, dim=1)


def gate(x: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the two halves of the channels: [..., 2d] -> [..., d]."""
    a, b = x.chunk(2, dim=-1)
    return a.tanh() * b.sigmoid()

"""VQ-VAE with a Gaussian decoder (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

An encoder maps an image to a small grid of vectors, each of which is replaced by the nearest
vector of a codebook; the decoder gives every pixel a Gaussian, p(x | z) = Π_s N(x_s; μ_s, σ_s).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.errors import InputError
from vqdistill.models.architectures import Layer, check_channels, encoder_layers
from vqdistill.models.batch_norm import BatchNorm2d
from vqdistill.models.doubling import Doubling, Halving
from vqdistill.models.gaussians import NegativeLogLikelihood, gaussians
from vqdistill.models.grid_convolution import GridConvolution, Pointwise, maps_of
from vqdistill.models.settings import model_settings, settings_from

IMAGES_AT_ONCE = 1024  # of encode and decode
GPU_IMAGES_AT_ONCE = 8192
DISTANCES_AT_ONCE = 2**24  # of the nearest-neighbour search
LLOYD_STEPS = 10


@dataclass(frozen=True)
class VQVAESettings:
    """Settings of a VQ-VAE; the defaults are the published ones for 28×28 images and a 2×2 grid.

    channels: output channels of the encoder's convolutions, one for each layer; the last is the
    width of the latents and of the codebook. commitment: β. initialisation of the codebook:
    'uniform' U(-1/K, 1/K) or 'kmeans' of encoded training images. ema_decay: 0 trains the codebook
    by gradient, γ > 0 by moving averages. revive_dead_codes: after each epoch, move the codes
    that it didn't use onto recent encodings.
    """

    grid: tuple[int, int] = (2, 2)
    codebook_size: int = 4096
    channels: tuple[int, ...] = (32, 64, 128, 256)
    commitment: float = 10.0
    initialisation: str = "uniform"
    ema_decay: float = 0.0
    revive_dead_codes: bool = False


class VQVAE(nn.Module):
    """VQ-VAE of grey images [h, w] with a grid [H, W] of K codes of width C.

    Raises InputError if no published stack takes the image to the grid, or a setting is impossible.
    """

    def __init__(self, image_shape: tuple[int, int], settings: VQVAESettings):
        super().__init__()
        layers, shapes = encoder_layers(image_shape, settings.grid)
        check_channels(settings.channels, len(layers), settings.grid)
        check_settings(settings)
        self.settings = settings
        self.image_shape = tuple(image_shape)
        self.grid = tuple(settings.grid)
        self.codebook_size = settings.codebook_size
        self.encoder = Encoder(layers, settings.channels, self.grid)
        self.decoder = Decoder(layers, shapes, settings.channels)
        self._add_codebook(settings.codebook_size, settings.channels[-1])

    def _add_codebook(self, size: int, width: int) -> None:
        codebook = torch.empty(size, width).uniform_(-1 / size, 1 / size)
        if self.settings.ema_decay > 0:
            self.register_buffer("codebook", codebook)
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        if self.settings.revive_dead_codes:
            self.register_buffer("usage", torch.zeros(size))  # of this epoch
            self.register_buffer("recent", torch.zeros(size, width))  # encodings, newest first

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes int64 [B, H, W] of images x [B, D]: the nearest neighbours of their encodings."""
        codes = [nearest(self._vectors(part), self.codebook) for part in parts_of(x)]
        return torch.cat(codes).view(-1, *self.grid)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations of p(x | z), each [B, D], of codes int64 [B, H, W]."""
        parts = [
            gaussians(self._maps(F.embedding(part.flatten(), self.codebook)))
            for part in parts_of(codes)
        ]
        means, log_stds = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(log_stds)

    def loss(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(x|z) + ‖sg[v] - e‖²/C + β ‖v - sg[e]‖²/C (van den Oord et al. 2017, Eq. 3).

        x: [B, D]; v: an image's encodings, e: their neighbours in the codebook, C: their width.
        The first term is summed over pixels, the squared errors are means over all their entries;
        sg is the stop-gradient and the decoder sees v + sg[e - v]. With moving averages the second
        term is left out. In nats per image. Parts: nll, codebook, commitment and perplexity, the
        exponential of the entropy of the batch's codes. Nothing is random: no use of `generator`.
        """
        vectors = self._vectors(x)  # [B*H*W, C]
        codes = nearest(vectors.detach(), self.codebook)  # [B*H*W]
        quantised = F.embedding(codes, self.codebook)
        maps = self._maps(vectors + (quantised - vectors).detach())
        nll = NegativeLogLikelihood.apply(x, maps).mean()
        codebook = F.mse_loss(quantised, vectors.detach())
        commitment = F.mse_loss(vectors, quantised.detach())
        counts = count(codes, self.codebook_size, vectors.dtype)
        if self.training:
            self._track(vectors.detach(), codes, counts)

        loss = nll + self.settings.commitment * commitment
        if self.settings.ema_decay == 0:
            loss = loss + codebook
        parts = {"nll": nll, "codebook": codebook, "commitment": commitment}
        parts["perplexity"] = torch.special.entr(counts / len(codes)).sum().exp()
        return loss, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def before_training(self, x: Tensor, generator: torch.Generator) -> None:
        """Initialise the codebook by k-means of the encodings of x [n, D], if so set.

        Raises InputError if the images have fewer encodings than the codebook has codes.
        """
        if self.settings.initialisation == "kmeans":
            vectors = torch.cat([self._vectors(part) for part in parts_of(x)])
            self._move(slice(None), kmeans(vectors, self.codebook_size, generator))

    @torch.no_grad()
    def after_epoch(self, generator: torch.Generator) -> None:
        """Move the codes that the epoch did not use onto recent encodings, if so set."""
        if not self.settings.revive_dead_codes:
            return
        n_recent = min(int(self.usage.sum()), self.codebook_size)
        order = torch.randperm(n_recent, generator=generator, device=generator.device)
        dead = (self.usage == 0).nonzero().squeeze(1)[:n_recent]
        self._move(dead, self.recent[order[: len(dead)].to(dead.device)])
        self.usage.zero_()

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of the encoder, the codebook and the decoder (batch norm's weights too)."""
        return {
            "encoder": sum(p.numel() for p in self.encoder.parameters()),
            "codebook": self.codebook.numel(),
            "decoder": sum(p.numel() for p in self.decoder.parameters()),
        }

    def _vectors(self, x: Tensor) -> Tensor:
        return self.encoder(x.view(-1, 1, *self.image_shape)).flatten(0, 1)  # [B*H*W, C]

    def _maps(self, vectors: Tensor) -> Tensor:
        """What the decoder makes of vectors [B*H*W, C]: [B, 2, D]."""
        maps = self.decoder(vectors.unflatten(0, (-1, math.prod(self.grid))))
        return maps.flatten(2).contiguous()

    @torch.no_grad()
    def _track(self, vectors: Tensor, codes: Tensor, counts: Tensor) -> None:
        if self.settings.revive_dead_codes:
            self.usage += counts
            self.recent.copy_(torch.cat([vectors, self.recent])[: self.codebook_size])
        if self.settings.ema_decay > 0:  # van den Oord et al. 2017, appendix A.1
            sums = torch.zeros_like(self.ema_sums).index_add_(0, codes, vectors)
            self.ema_counts.lerp_(counts, 1 - self.settings.ema_decay)
            self.ema_sums.lerp_(sums, 1 - self.settings.ema_decay)
            alive = self.ema_counts > 1e-6  # the averages of unused codes fade to 0/0
            averages = self.ema_sums / self.ema_counts.clamp_min(1e-6)[:, None]
            self.codebook.copy_(torch.where(alive[:, None], averages, self.codebook))

    def _move(self, codes: Tensor | slice, vectors: Tensor) -> None:
        self.codebook[codes] = vectors
        if self.settings.ema_decay > 0:
            self.ema_counts[codes] = 1.0
            self.ema_sums[codes] = vectors


def parts_of(images: Tensor) -> tuple[Tensor, ...]:
    """Images, or their codes, as many at once as a pass takes."""
    return images.split(GPU_IMAGES_AT_ONCE if images.is_cuda else IMAGES_AT_ONCE)


class Encoder(nn.Module):
    """Images [B, 1, h, w] -> vectors [B, H*W, C]: convolutions, then two residual blocks."""

    def __init__(self, layers: tuple[Layer, ...], channels: tuple[int, ...], grid: tuple[int, int]):
        super().__init__()
        modules: list[nn.Module] = []
        n_in = 1
        for layer, n_out in zip(layers, channels, strict=True):
            modules.append(Halving(n_in, n_out, *layer[:3], bias=layer.bare))
            if not layer.bare:
                modules += [BatchNorm2d(n_out), nn.ReLU(inplace=True)]
            n_in = n_out
        self.convolutions = nn.Sequential(*modules)
        self.blocks = nn.Sequential(Residual(grid, n_in), Residual(grid, n_in))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolutions(images.to(memory_format=torch.channels_last))  # [B, C, H, W]
        return self.blocks(maps.flatten(2).permute(2, 0, 1).contiguous()).transpose(0, 1)


class Decoder(nn.Module):
    """Vectors [B, H*W, C] -> [B, 2, h, w]: the encoder mirrored, means and log-variances."""

    def __init__(
        self, layers: tuple[Layer, ...], shapes: list[tuple[int, int]], channels: tuple[int, ...]
    ):
        super().__init__()
        self.grid = shapes[-1]
        self.blocks = nn.Sequential(*(Residual(self.grid, channels[-1]) for _ in range(2)))
        modules: list[nn.Module] = []
        outputs = (2, *channels[:-1])
        for i in reversed(range(len(layers))):
            bare = i == 0
            kernel, stride, padding, _ = layers[i]
            reached = [(side - 1) * stride - 2 * padding + kernel for side in shapes[i + 1]]
            missing = tuple(side - got for side, got in zip(shapes[i], reached, strict=True))
            shape = (channels[i], outputs[i], kernel, stride, padding, missing)
            modules.append(Doubling(*shape, bias=bare))
            if not bare:
                modules += [BatchNorm2d(outputs[i]), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*modules)

    def forward(self, vectors: Tensor) -> Tensor:
        features = self.blocks(vectors.transpose(0, 1).contiguous())  # [H*W, B, C]
        return self.convolutions(maps_of(features, self.grid))


class Residual(nn.Module):
    """x + BN(1×1(ReLU(BN(3×3(ReLU(x)))))) of features x [H*W, B, C] on a grid."""

    def __init__(self, grid: tuple[int, int], channels: int):
        super().__init__()
        self.convolution = GridConvolution(grid, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.pointwise = Pointwise(channels)
        self.last_norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(self.convolution(x.relu()).flatten(0, 1))  # [H*W*B, C]
        return self.last_norm(self.pointwise(rows.relu_())).view_as(x).add_(x)


def check_settings(settings: VQVAESettings) -> None:
    """Raises InputError at the first setting that is impossible."""
    if settings.codebook_size < 1:
        raise InputError(f"codebook_size: {settings.codebook_size} given, give at least 1")
    if settings.initialisation not in ("uniform", "kmeans"):
        raise InputError(
            f"initialisation: '{settings.initialisation}' given, choose 'uniform' or 'kmeans'"
        )
    if not 0 <= settings.ema_decay < 1:
        raise InputError(
            f"ema_decay: {settings.ema_decay} given, give 0 (codebook trained by gradient) or a "
            "number between 0 and 1, such as 0.99"
        )


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """argmin_k ‖v - e_k‖² (the first of equals) of vectors [n, C] and a codebook [K, C]: [n]."""
    norms = codebook.square().sum(1)
    rows = max(1, DISTANCES_AT_ONCE // len(codebook))
    parts = [
        torch.addmm(norms, part, codebook.T, alpha=-2).min(1).indices  # ‖v - e‖² - ‖v‖²
        for part in vectors.split(rows)
    ]
    return torch.cat(parts)


def count(codes: Tensor, codebook_size: int, dtype: torch.dtype) -> Tensor:
    """How often each code occurs: [K]."""
    counts = torch.zeros(codebook_size, dtype=dtype, device=codes.device)
    return counts.index_add_(0, codes, torch.ones_like(codes, dtype=dtype))


@torch.no_grad()
def kmeans(vectors: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Cluster centres [K, C] of vectors [n, C]: Lloyd's steps from randomly chosen vectors.

    Clusters that lose all their vectors stay where they are. Raises InputError if n < K.
    """
    if len(vectors) < n_clusters:
        raise InputError(
            f"initialisation: k-means of {n_clusters} codes needs as many encodings, the "
            f"training_part has {len(vectors)}; raise it, lower codebook_size or choose 'uniform'"
        )
    order = torch.randperm(len(vectors), generator=generator, device=generator.device)
    centres = vectors[order[:n_clusters].to(vectors.device)]
    for _ in range(LLOYD_STEPS):
        members = nearest(vectors, centres)
        sizes = count(members, n_clusters, vectors.dtype)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, members, vectors)
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


def build_vqvae(image_shape: tuple[int, int], settings: dict[str, Any]) -> VQVAE:
    """An untrained VQ-VAE with the settings of train_vqvae."""
    return VQVAE(
        tuple(image_shape), settings_from(VQVAESettings, model_settings(settings), "vqvae")
    )

"""VQ-VAE with a Gaussian decoder (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

An encoder maps an image to a small grid of vectors, each of which is replaced by the nearest
vector of a codebook; the decoder gives every pixel a Gaussian, p(x | z) = Π_s N(x_s; μ_s, σ_s).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.circuits.gaussian import MAX_STD, MIN_STD, log_density
from vqdistill.models.architectures import Convolution, check_channels, encoder_layers
from vqdistill.models.codebook import Codebook, kmeans, perplexity
from vqdistill.models.residual import Residual
from vqdistill.settings import VQVAE as VQVAESettings

IMAGES_AT_ONCE = 1024  # of encode and decode
GPU_IMAGES_AT_ONCE = 8192


class VQVAE(nn.Module):
    """VQ-VAE of grey images [h, w] with a grid [H, W] of K codes of width C.

    Raises InputError if no published stack takes the image to the grid, or has other channels.
    """

    def __init__(self, image_shape: tuple[int, int], settings: VQVAESettings):
        super().__init__()
        layers, shapes = encoder_layers(image_shape, settings.grid)
        check_channels(settings.channels, len(layers), settings.grid)
        self.settings = settings
        self.tf32 = ("convolutions",) if settings.tf32 else ()  # not in what finds codes
        self.image_shape = tuple(image_shape)
        self.grid = settings.grid
        self.codebook_size = settings.codebook_size
        self.encoder = encoder(layers, settings.channels)
        self.decoder = decoder(layers, shapes, settings.channels)
        self.codebook = Codebook(settings)
        self.to(memory_format=torch.channels_last)  # a fifth quicker

    @property
    def device(self) -> torch.device:
        return self.codebook.vectors.device

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes int64 [B, H, W] of images x [B, D]: the nearest neighbours of their encodings."""
        codes = [self.codebook.nearest(self.encodings(part)) for part in parts_of(x)]
        return torch.cat(codes).view(-1, *self.grid)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations of p(x | z), each [B, D], of codes int64 [B, H, W]."""
        parts = [self.gaussians(self.codebook(part.flatten())) for part in parts_of(codes)]
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
        v = self.encodings(x)  # [B*H*W, C]
        codes = self.codebook.nearest(v)  # [B*H*W]
        e = self.codebook(codes)
        means, log_stds = self.gaussians(v + (e - v).detach())
        nll = -log_density(x, means, log_stds).sum(1).mean()
        codebook = F.mse_loss(e, v.detach())
        commitment = F.mse_loss(v, e.detach())
        if self.training:
            self.codebook.track(v.detach(), codes)

        loss = nll + self.settings.commitment * commitment
        if self.settings.ema_decay == 0:
            loss = loss + codebook
        parts = {"nll": nll, "codebook": codebook, "commitment": commitment}
        parts["perplexity"] = perplexity(codes, self.codebook_size, v.dtype)
        return loss, {name: part.detach() for name, part in parts.items()}

    def encodings(self, x: Tensor) -> Tensor:
        """What the encoder makes of images x [B, D]: vectors [B*H*W, C], row by row."""
        maps = self.encoder(x.view(-1, 1, *self.image_shape))  # [B, C, H, W]
        return maps.permute(0, 2, 3, 1).flatten(0, 2)

    def gaussians(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, each [B, D], of vectors [B*H*W, C].

        The decoder gives a mean before its sigmoid and a log-variance.
        """
        maps = self.decoder(vectors.view(-1, *self.grid, vectors.shape[1]).permute(0, 3, 1, 2))
        raw_means, log_variances = maps.flatten(2).contiguous().unbind(1)  # of [B, 2, D]
        log_stds = (log_variances / 2).clamp(math.log(MIN_STD), math.log(MAX_STD))
        return raw_means.sigmoid(), log_stds

    @torch.no_grad()
    def before_training(self, x: Tensor, generator: torch.Generator) -> None:
        """Initialise the codebook by k-means of the encodings of x [n, D], if so set.

        Raises InputError if the images have fewer encodings than the codebook has codes.
        """
        if self.settings.initialisation == "kmeans":
            encodings = torch.cat([self.encodings(part) for part in parts_of(x)])
            self.codebook.move(slice(None), kmeans(encodings, self.codebook_size, generator))

    def after_epoch(self, generator: torch.Generator) -> None:
        """Move the codes that the epoch did not use onto recent encodings, if so set."""
        if self.settings.revive_dead_codes:
            self.codebook.revive(generator)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of the encoder, the codebook and the decoder (batch norm's weights too)."""
        return {
            "encoder": sum(p.numel() for p in self.encoder.parameters()),
            "codebook": self.codebook.vectors.numel(),
            "decoder": sum(p.numel() for p in self.decoder.parameters()),
        }


def encoder(layers: tuple[Convolution, ...], channels: tuple[int, ...]) -> nn.Sequential:
    """Images [B, 1, h, w] -> [B, C, H, W]: convolutions, then two residual blocks."""
    modules: list[nn.Module] = []
    for layer, n_in, n_out in zip(layers, (1, *channels), channels, strict=False):
        kernel, stride, padding, bare = layer
        modules.append(nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=bare))
        if not bare:
            modules += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules, Residual(channels[-1]), Residual(channels[-1]))


def decoder(
    layers: tuple[Convolution, ...], shapes: list[tuple[int, int]], channels: tuple[int, ...]
) -> nn.Sequential:
    """[B, C, H, W] -> [B, 2, h, w], the encoder mirrored."""
    modules: list[nn.Module] = [Residual(channels[-1]), Residual(channels[-1])]
    for i in reversed(range(len(layers))):
        kernel, stride, padding, _ = layers[i]
        n_out = channels[i - 1] if i else 2
        missing = [  # rows and columns that the encoder's convolution left out
            side - ((below - 1) * stride - 2 * padding + kernel)
            for side, below in zip(shapes[i], shapes[i + 1], strict=True)
        ]
        last = i == 0
        modules.append(
            nn.ConvTranspose2d(channels[i], n_out, kernel, stride, padding, missing, bias=last)
        )
        if not last:
            modules += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def parts_of(images: Tensor) -> tuple[Tensor, ...]:
    """Images, or their codes, as many at once as a pass takes."""
    return images.split(GPU_IMAGES_AT_ONCE if images.is_cuda else IMAGES_AT_ONCE)

"""Mixtures over the latents of a VQ-VAE: Eq. 2 of the paper over selected ones, Eq. 1 over all.

A file of such a mixture holds the decoder, the codebook and the codes: a tenth of its components'
parameters, and less.
"""

from typing import Any

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.circuits.base import Circuit, Stored
from vqdistill.circuits.mixture import (
    DecodedComponents,
    Mixture,
    StreamedMixture,
    uniform_log_weights,
)
from vqdistill.distillation.enumeration import codes_of
from vqdistill.errors import InputError
from vqdistill.models.vqvae import VQVAE

DECODED_AT_ONCE = 2**27  # leaves of an exact model that are kept: they take a gigabyte
OF_DECODER = ("decoder.", "codebook.vectors")  # tensors of a VQ-VAE that decoding needs


class DecodedLatents(DecodedComponents):
    """p(x|z) of latents z: of codes [N, H, W], or of all K^HW in lexicographic order."""

    def __init__(self, vqvae: VQVAE, codes: Tensor | None = None) -> None:
        K, grid, (h, w) = vqvae.codebook_size, vqvae.grid, vqvae.image_shape

        @torch.no_grad()
        def decode(index: Tensor) -> tuple[Tensor, Tensor]:
            return vqvae.decode(codes_of(index, K, grid) if codes is None else codes[index])

        n = K ** (grid[0] * grid[1]) if codes is None else len(codes)
        super().__init__(decode, n, h * w, vqvae.device)
        self.vqvae, self.codes = vqvae, codes

    def to(self, device: torch.device | str) -> "DecodedLatents":
        codes = None if self.codes is None else self.codes.to(device)
        return DecodedLatents(self.vqvae.to(device), codes)

    def stored(self) -> Stored:
        tensors = {
            f"vqvae/{name}": tensor
            for name, tensor in self.vqvae.state_dict().items()
            if name.startswith(OF_DECODER)
        }
        if self.codes is not None:
            small = torch.uint8 if self.vqvae.codebook_size <= 256 else torch.int32
            tensors["codes"] = self.codes.to(small)
        return Stored("latents", tensors, {"settings": settings.plain(self.vqvae.settings)})


class LatentMixture(Mixture):
    """A mixture over latents whose components are decoded once, and held."""

    def __init__(
        self, log_weights: Tensor, latents: DecodedLatents, log_classes: Tensor | None = None
    ) -> None:
        super().__init__(log_weights, *latents.parameters(slice(None)), log_classes)
        self.latents = latents

    def to(self, device: torch.device | str) -> "LatentMixture":
        self.latents = self.latents.to(device)
        return super().to(device)

    def _stored(self) -> Stored:
        return self._stored_with(self.latents)


@torch.no_grad()
def distilled_mixture(
    vqvae: Any,
    codes: Tensor,
    log_weights: Tensor | None = None,
    log_prob_by_class: Tensor | None = None,
) -> Mixture:
    """Eq. 2: the mixture of p(x|z) over selected latents, uniform if no weights [N] are given.

    With log p(z|c) [N, C] of the latents it knows classes, equally likely ones: p(c|z) ∝ p(z|c).
    vqvae: a VQVAE, or anything with decode(codes int64 [N, H, W]) that gives means and log standard
    deviations [N, D]; its `image_shape`, `levels` and `device` are taken over where it has them.
    """
    codes = codes.to(getattr(vqvae, "device", codes.device))
    log_weights = uniform_log_weights(len(codes)) if log_weights is None else log_weights
    if isinstance(vqvae, VQVAE):
        latents = DecodedLatents(vqvae, codes)
        mixture = LatentMixture(log_weights, latents, log_prob_by_class)
    else:
        mixture = Mixture(log_weights, *vqvae.decode(codes), log_prob_by_class)
    return _described(mixture.to(codes.device), vqvae)


def exact_mixture(
    vqvae: VQVAE,
    log_prior: Tensor,
    log_prob_by_class: Tensor | None = None,
    uniform: bool = False,
) -> StreamedMixture:
    """Eq. 1: the mixture over all latents, decoded as they are needed where they are many.

    log_prior: the weights log p(z) [K^HW], of the latents in lexicographic order, the last position
    fastest. With log p(z|c) [K^HW, C] it knows classes.
    """
    log_weights = uniform_log_weights(len(log_prior)) if uniform else log_prior
    latents = DecodedLatents(vqvae)
    held = len(latents) * latents.n_variables <= DECODED_AT_ONCE
    kind = LatentMixture if held else StreamedMixture
    mixture = kind(log_weights, latents, log_prob_by_class)
    return _described(mixture.to(vqvae.device), vqvae)


def from_stored(tensors: dict[str, Tensor], facts: dict[str, Any]) -> StreamedMixture:
    """The mixture that `save` wrote."""
    own = settings.parsed(settings.VQVAE, facts["settings"], "the file", "settings")
    vqvae = VQVAE(tuple(facts["image_shape"]), own)
    weights = {name: t for name, t in tensors.items() if name.startswith("vqvae/")}
    state = {name.removeprefix("vqvae/"): tensor for name, tensor in weights.items()}
    if {*state} != {name for name in vqvae.state_dict() if name.startswith(OF_DECODER)}:
        raise InputError("holds the weights of another model; save it again")
    vqvae.load_state_dict(state, strict=False)
    del vqvae.encoder  # it isn't in the file
    vqvae.eval().requires_grad_(False)
    log_weights, classes = tensors["log_weights"], tensors.get("log_classes")
    if "codes" in tensors:
        return distilled_mixture(vqvae, tensors["codes"].long(), log_weights, classes)
    return exact_mixture(vqvae, log_weights, classes)


def _described(mixture: Circuit, vqvae: Any) -> Any:
    mixture.image_shape = getattr(vqvae, "image_shape", None)
    mixture.levels = getattr(vqvae, "levels", None)
    return mixture

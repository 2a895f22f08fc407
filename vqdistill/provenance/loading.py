"""Finished models back from their files, ready to be asked."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.components import DecodedComponents
from vqdistill.circuits.mixture import Mixture, StreamedMixture, uniform_log_weights
from vqdistill.distillation.enumeration import codes_of
from vqdistill.errors import InputError
from vqdistill.files import read_arrays, read_tensors
from vqdistill.models.classifier import Classifier, build_classifier
from vqdistill.models.pixelcnn import PixelCNN, build_prior
from vqdistill.models.settings import build_baseline, load_baseline
from vqdistill.models.vqvae import VQVAE, build_vqvae
from vqdistill.randomness import generator

DECODED_AT_ONCE = 2**27  # leaves of an exact model that are kept: they take a gigabyte


def load_vqvae(path: str | Path, device: torch.device | str = "cpu") -> VQVAE:
    """A trained VQ-VAE, frozen and in evaluation mode."""
    return _load(path, device, build_vqvae)[0]


def load_prior(path: str | Path, device: torch.device | str = "cpu") -> PixelCNN:
    """A trained prior, frozen and in evaluation mode."""
    return _load(path, device, build_prior)[0]


def load_classifier(path: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """The trained classifier, frozen and in evaluation mode."""
    return _load(path, device, build_classifier)[0]


def load_baseline_circuit(
    path: str | Path, n_components: int, device: torch.device | str = "cpu"
) -> Circuit:
    """A trained baseline as a circuit, compiled to `n_components` if it is a mixture."""
    model, metadata = _load(path, device, build_baseline)
    method = metadata["settings"]["method"]
    if load_baseline(method).PREFIXES_ARE_MODELS and n_components < 1:
        raise InputError(f"n_components: {n_components} given; {method} needs 1 or more")
    points = generator(metadata["seed"], f"components {method}")
    return load_baseline(method).circuit(model, n_components, points)


def _load(path: str | Path, device: torch.device | str, build) -> tuple[Any, dict[str, Any]]:
    """A trained model, frozen and in evaluation mode, and the metadata of its file."""
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # its error would show at deviations of 1e-3
    weights, metadata = read_tensors(path)
    try:
        model = build(metadata["image_shape"], metadata["settings"])
        model.load_state_dict(weights)
    except (KeyError, RuntimeError):
        raise InputError(f"{path}: holds the weights of another model; train it again") from None
    return model.to(device).eval().requires_grad_(False), metadata


def read_latents(path: str | Path, n_components: int) -> tuple[Tensor, Tensor]:
    """Codes [N, H, W] and log p(z) [N] of N selected latents.

    The file holds them for this N, or for a larger one whose first N they are.
    """
    arrays = read_arrays(path)
    sizes = sorted(int(name[6:]) for name in arrays if name.startswith("codes_"))
    if n_components not in sizes and (len(sizes) != 1 or not 0 < n_components <= sizes[0]):
        raise InputError(f"{path}: no {n_components} components; expected one of {sizes}")
    n = n_components if n_components in sizes else sizes[0]
    codes, log_prior = arrays[f"codes_{n}"], arrays[f"log_prob_{n}"]
    return torch.from_numpy(codes[:n_components]), torch.from_numpy(log_prior[:n_components])


@torch.no_grad()
def distilled_mixture(vqvae: VQVAE, codes: Tensor, log_weights: Tensor | None = None) -> Mixture:
    """Eq. 2: the mixture of p(x|z) over selected latents, uniform if no weights [N] are given."""
    device = next(vqvae.parameters()).device
    means, log_stds = vqvae.decode(codes.to(device))
    if log_weights is None:
        log_weights = uniform_log_weights(len(codes))
    return Mixture(log_weights.to(device), means, log_stds)


def exact_mixture(vqvae: VQVAE, log_prior: Tensor, uniform: bool = False) -> StreamedMixture:
    """Eq. 1: the mixture over all latents, decoded as they are needed where they are many.

    log_prior: the weights log p(z) [K^HW], of the latents in lexicographic order, the last position
    fastest.
    """
    settings, device = vqvae.settings, next(vqvae.parameters()).device
    log_weights = uniform_log_weights(len(log_prior)) if uniform else log_prior
    log_weights = log_weights.to(device)

    @torch.no_grad()
    def decode(index: Tensor) -> tuple[Tensor, Tensor]:
        return vqvae.decode(codes_of(index, settings.codebook_size, settings.grid))

    n_variables = vqvae.image_shape[0] * vqvae.image_shape[1]
    if len(log_prior) * n_variables <= DECODED_AT_ONCE:
        return Mixture(log_weights, *decode(torch.arange(len(log_prior), device=device)))
    components = DecodedComponents(decode, len(log_prior), n_variables, device)
    return StreamedMixture(log_weights, components)


def load(
    results: str | Path,
    method: str,
    *,
    grid: str = "",
    codebook_size: int = 0,
    size: int = 0,
    n_components: int = 0,
    weights: str = "",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Circuit:
    """A tractable model of a finished run, such as load('results/quick', 'dmbs', grid='4x4', …).

    Distilled models ('dmrs', 'dmbs', …) need grid, codebook_size and n_components; 'exm' needs grid
    and codebook_size; 'cm' needs n_components; 'einet' and 'gmm' need size. weights, of models of a
    VQ-VAE: 'uniform' (Eq. 2, what distilled models have unless told otherwise) or 'prior' (Eq. 1,
    what 'exm' has). Raises InputError where the run holds no such model.
    """
    results = Path(results)
    if weights not in ("", "uniform", "prior"):
        raise InputError(f"weights: found {weights!r}, expected 'uniform' or 'prior'")
    if not grid:
        name = f"{method}-{size}" if size else method
        path = results / "models" / name / f"seed-{seed}" / "weights.safetensors"
        circuit = load_baseline_circuit(path, n_components, device)
        if weights:
            raise InputError(f"weights: found {weights!r}, expected none: {method!r} has its own")
        return circuit
    source = f"{grid}-K{codebook_size}"
    vqvae = load_vqvae(
        results / "models" / f"vqvae-{source}" / f"seed-{seed}" / "weights.safetensors", device
    )
    latents = results / "latents" / source / f"seed-{seed}" / f"{method}.npz"
    if method == "exm":
        log_prior = torch.from_numpy(read_arrays(latents)["log_prob"])
        return exact_mixture(vqvae, log_prior, uniform=weights == "uniform")
    codes, log_prior = read_latents(latents, n_components)
    log_weights = torch.log_softmax(log_prior, 0) if weights == "prior" else None
    return distilled_mixture(vqvae, codes, log_weights)

"""Finished models back from their files, ready to be asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.baselines import has_size, load_baseline, settings_of
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.mixture import (
    DecodedComponents,
    Mixture,
    StreamedMixture,
    uniform_log_weights,
)
from vqdistill.data import N_CLASSES
from vqdistill.distillation import EXACT_METHOD, method_names
from vqdistill.distillation.enumeration import codes_of
from vqdistill.distillation.selection import mean_over_classes
from vqdistill.errors import InputError
from vqdistill.files import read_arrays, read_tensors
from vqdistill.models.classifier import Classifier
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.provenance.records import read_record
from vqdistill.randomness import generator

DECODED_AT_ONCE = 2**27  # leaves of an exact model that are kept: they take a gigabyte


def load_vqvae(path: str | Path, device: torch.device | str = "cpu") -> VQVAE:
    """A trained VQ-VAE, frozen and in evaluation mode."""
    return _load(path, device, settings.VQVAE, VQVAE)[0]


def load_prior(path: str | Path, device: torch.device | str = "cpu") -> PixelCNN:
    """A trained prior, frozen and in evaluation mode."""
    return _load(path, device, settings.Prior, lambda _, own: PixelCNN(own, N_CLASSES))[0]


def load_classifier(path: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """The trained classifier, frozen and in evaluation mode."""
    kind = settings.Classifier
    return _load(path, device, kind, lambda shape, own: Classifier(shape, N_CLASSES, own))[0]


def load_baseline_circuit(
    path: str | Path, n_components: int, device: torch.device | str = "cpu"
) -> Circuit:
    """A trained baseline as a circuit, compiled to `n_components` if it is a mixture."""

    def build(shape: tuple[int, int], training: settings.BaselineTraining) -> torch.nn.Module:
        kind = settings_of(training.method)
        own = settings.parsed(kind, training.settings, path, "settings")
        return load_baseline(training.method).build(shape, own)

    model, metadata = _load(path, device, settings.BaselineTraining, build)
    method = metadata["settings"]["method"]
    if has_size(method):
        return model
    if n_components < 1:
        raise InputError(f"n_components: {n_components} given; {method} needs 1 or more")
    points = generator(metadata["seed"], f"components {method}")
    return load_baseline(method).circuit(model, n_components, points)


def _load(
    path: str | Path, device: torch.device | str, kind: type[settings.Settings], build: Callable
) -> tuple[Any, dict[str, Any]]:
    """A trained model, frozen and in evaluation mode, and the metadata of its file.

    build(image shape, settings of `kind`): an untrained model.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # its error would show at deviations of 1e-3
    weights, metadata = read_tensors(path)
    own = settings.parsed(kind, metadata["settings"], path, "settings")
    model = build(tuple(metadata["image_shape"]), own)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"{path}: holds the weights of another model; train it again") from None
    return model.to(device).eval().requires_grad_(False), metadata


class Latents(NamedTuple):
    """What `distil` wrote of one method."""

    path: str | Path
    arrays: dict[str, Tensor]

    @property
    def log_prob_of_all(self) -> Tensor:
        """log p(z) [K^HW] of the exact model's latents, in lexicographic order, the last position
        fastest."""
        return self.arrays["log_prob"]

    @property
    def sizes(self) -> list[int]:
        """The N for which latents were selected; each of the first n is a selection where there
        is one N."""
        names = (name for name in self.arrays if name.startswith("codes_"))
        return sorted(int(name.removeprefix("codes_")) for name in names)

    def first(self, n_components: int) -> tuple[Tensor, Tensor]:
        """Codes [N, H, W] and log p(z) [N] of N selected latents. InputError if there are none."""
        sizes = self.sizes
        if n_components not in sizes and (len(sizes) != 1 or not 0 < n_components <= sizes[0]):
            raise InputError(f"{self.path}: no {n_components} components; expected one of {sizes}")
        n = n_components if n_components in sizes else sizes[0]
        log_prob = mean_over_classes(self.arrays[f"log_prob_by_class_{n}"][:n_components])
        return self.arrays[f"codes_{n}"][:n_components], log_prob


def read_latents(path: str | Path) -> dict[str, Latents]:
    """The latents of a teacher by method, as `distil` wrote them."""
    latents: dict[str, Latents] = {}
    for name, array in read_arrays(path).items():
        method, _, kind = name.partition("/")
        of_method = latents.setdefault(method, Latents(path, {}))
        of_method.arrays[kind] = torch.from_numpy(array)
    return latents


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
    device = next(vqvae.parameters()).device
    log_weights = uniform_log_weights(len(log_prior)) if uniform else log_prior
    log_weights = log_weights.to(device)

    @torch.no_grad()
    def decode(index: Tensor) -> tuple[Tensor, Tensor]:
        return vqvae.decode(codes_of(index, vqvae.codebook_size, vqvae.grid))

    n_variables = vqvae.image_shape[0] * vqvae.image_shape[1]
    if len(log_prior) * n_variables <= DECODED_AT_ONCE:
        return Mixture(log_weights, *decode(torch.arange(len(log_prior), device=device)))
    components = DecodedComponents(decode, len(log_prior), n_variables, device)
    return StreamedMixture(log_weights, components)


def check_same_training(vqvae: Path, latents: Path) -> None:
    """InputError where latents were selected from the codes of another training of a VQ-VAE, as the
    records beside the files say; nothing is said where there are none."""
    records = [path.with_name("record.json") for path in (vqvae, latents)]
    if all(record.exists() for record in records):
        trained, selected = (read_record(record)["files"] for record in records)
        codes = {digest for file, digest in trained.items() if file.endswith("codes.npz")}
        if not codes & {*selected.values()}:
            raise InputError(
                f"{latents}: selected from another training than {vqvae}; run the experiment to its"
                " end first"
            )


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
    what 'exm' has). Raises InputError where the run holds no such model, and where the latents were
    selected from another training of the VQ-VAE.
    """
    results = Path(results)
    if weights not in ("", "uniform", "prior"):
        raise InputError(f"weights: found {weights!r}, expected 'uniform' or 'prior'")
    if not grid:
        if method in (EXACT_METHOD, *method_names()):
            raise InputError(f"{method}: distilled from a VQ-VAE; give its grid and codebook_size")
        name = f"{method}-{size}" if size else method
        path = results / "models" / name / f"seed-{seed}" / "weights.safetensors"
        circuit = load_baseline_circuit(path, n_components, device)
        if weights:
            raise InputError(f"weights: found {weights!r}, expected none: {method!r} has its own")
        return circuit
    teacher, run = f"{grid}-K{codebook_size}", f"seed-{seed}"
    trained = results / f"models/vqvae-{teacher}" / run / "weights.safetensors"
    path = results / "latents" / teacher / run / "latents.npz"
    check_same_training(trained, path)
    vqvae, latents = load_vqvae(trained, device), read_latents(path)
    if method not in latents:
        raise InputError(f"{path}: no {method!r}, only {', '.join(latents)}")
    if method == EXACT_METHOD:
        return exact_mixture(vqvae, latents[method].log_prob_of_all, uniform=weights == "uniform")
    codes, log_prior = latents[method].first(n_components)
    log_weights = torch.log_softmax(log_prior, 0) if weights == "prior" else None
    return distilled_mixture(vqvae, codes, log_weights)

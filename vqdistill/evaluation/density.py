"""Density estimation: log-likelihoods in nats per image, and bits per dimension.

A log-likelihood has no lower bound, and a few images can decide its mean. So quantiles over the
images stand beside every mean of one.

Beside the density of dequantised images stands the probability of their grey levels, which takes
three times as long. It is that of all test images, but of mixtures beyond `MANY` components, and of
the first `FEW` images elsewhere.
"""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from vqdistill.data import Images, bits_per_dimension, to_images
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels, name_of

log = logging.getLogger(__name__)

MANY = 2**16  # components
FEW = 1000  # images
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95, "q100": 1.0}  # the largest is the worst image's


def quantiles(name: str, values: np.ndarray) -> dict[str, float]:
    """Quantiles `<name>_q50`, … over images of what one image has.

    Each is the value of an image, none lies between two, so that infinite values do no harm.
    """
    found = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return {f"{name}_{key}": float(q) for key, q in zip(QUANTILES, found, strict=True)}


def bits(name: str, log_prob: Tensor, n_variables: int, levels: int) -> dict[str, float]:
    """Mean and quantiles of bits per dimension, from log-likelihoods [n] in nats."""
    values = bits_per_dimension(log_prob.cpu().double().numpy(), n_variables, levels)
    return {name: float(values.mean())} | quantiles(name, values)


def log_probs_discrete(models: EvaluatedModels, images: Images) -> dict[str, list[Evaluated]]:
    """By split log P(v) [n] of the grey levels v of its first images, of all models.

    They are the levels in which the images with noise lie. Rounding to float32 has put one pixel in
    a million of MNIST into the next one.
    """
    levels, counts = first_grey_levels(models, images)
    found: dict[str, list[Evaluated]] = {split: [] for split in counts}
    for n_components, weights, log_prob in models.log_probs_discrete(levels):
        of_splits = log_prob.split(list(counts.values()))
        for rows, of_split in zip(found.values(), of_splits, strict=True):
            rows.append((n_components, weights, of_split))
    return found


def first_grey_levels(models: EvaluatedModels, images: Images) -> tuple[Tensor, dict[str, int]]:
    """Grey levels uint8 [n, D] of the images whose log P(v) is measured, split by split, and how
    many each split has."""
    few = {split: models.largest > MANY or split != "test" for split in images.evaluated}
    parts = {split: x[:FEW] if few[split] else x for split, x in images.evaluated.items()}
    levels = to_images(torch.cat([*parts.values()]), images.levels)
    device = images.evaluated["test"].device
    return torch.from_numpy(levels).to(device), {split: len(x) for split, x in parts.items()}


def density_rows(
    models: EvaluatedModels,
    log_probs: Iterable[Evaluated],
    discrete: Iterable[Evaluated],
    split: str,
    levels: int,
) -> Iterator[dict[str, object]]:
    """Rows of density.csv, of all models on one split; discrete: log P(v) of the same models."""
    n_variables = models.circuit.n_variables
    for (n_components, weights, log_prob), (*_, of_levels) in zip(log_probs, discrete, strict=True):
        measured = bits("bpd", log_prob, n_variables, levels)
        measured["n_images_discrete"] = len(of_levels)
        measured["log_prob_discrete"] = of_levels.mean().item()
        measured |= bits("bpd_discrete", of_levels, n_variables, 1)
        keys = models.keys(n_components, weights)
        if split == "test":
            both = measured["bpd"], measured["bpd_discrete"]
            log.info("%s: %.4f bits per dimension, %.4f discrete", name_of(keys), *both)
        yield keys | {
            "split": split,
            "n_images": len(log_prob),
            "log_likelihood": log_prob.mean().item(),
            **measured,
            "n_parameters": models.n_parameters(n_components),
        }

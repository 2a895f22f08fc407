"""Density estimation: log-likelihoods in nats per image, and bits per dimension.

A log-likelihood has no lower bound, and a few images can decide its mean. So quantiles over the
images stand beside every mean of one.
"""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels, name_of

log = logging.getLogger(__name__)

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


def density_rows(
    models: EvaluatedModels, log_probs: Iterable[Evaluated], split: str, levels: int
) -> Iterator[dict[str, object]]:
    """Rows of density.csv, of all models on one split."""
    for n_components, weights, log_prob in log_probs:
        measured = bits("bpd", log_prob, models.circuit.n_variables, levels)
        keys = models.keys(n_components, weights)
        if split == "test":
            log.info("%s: %.4f bits per dimension", name_of(keys), measured["bpd"])
        yield keys | {
            "split": split,
            "n_images": len(log_prob),
            "log_likelihood": log_prob.mean().item(),
            **measured,
            "n_parameters": models.n_parameters(n_components),
        }

"""Density estimation: mean log-likelihood in nats per image, and bits per dimension."""

import logging
from collections.abc import Iterator

from torch import Tensor

from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.subjects import Subject

log = logging.getLogger(__name__)


def density_rows(
    subject: Subject, evaluated: dict[str, Tensor], levels: int
) -> Iterator[dict[str, object]]:
    """Rows of density.csv: every model of the subject on every split of images [n, D]."""
    for split, x in evaluated.items():
        for n_components, weights, log_prob in subject.log_probs(x):
            mean = log_prob.mean().item()
            bpd = bits_per_dimension(mean, x.shape[1], levels)
            keys = subject.keys(n_components, weights)
            if split == "test":
                log.info("%s: %.4f bits per dimension", _name(keys), bpd)
            yield keys | {
                "split": split,
                "n_images": len(x),
                "log_likelihood": mean,
                "bpd": float(bpd),
                "n_parameters": subject.n_parameters(n_components),
            }


def _name(keys: dict[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in keys.items() if value not in ("-", 0))

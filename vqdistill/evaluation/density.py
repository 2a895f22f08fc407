"""Density estimation: mean log-likelihood in nats per image, and bits per dimension."""

import logging
from collections.abc import Iterator

from torch import Tensor

from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.subjects import Subject, name_of

# by split: (number of components, name of the weights, log p(x) [n])
LogLikelihoods = dict[str, list[tuple[int, str, Tensor]]]

log = logging.getLogger(__name__)


def log_likelihoods(subject: Subject, evaluated: dict[str, Tensor]) -> LogLikelihoods:
    """log p(x) [n] in nats of every model of the subject on every split of images [n, D]."""
    return {split: list(subject.log_probs(x)) for split, x in evaluated.items()}


def density_rows(
    subject: Subject, log_probs: LogLikelihoods, levels: int
) -> Iterator[dict[str, object]]:
    """Rows of density.csv, of every model of the subject on every split."""
    for split, models in log_probs.items():
        for n_components, weights, log_prob in models:
            mean = log_prob.mean().item()
            bpd = bits_per_dimension(mean, subject.circuit.n_variables, levels)
            keys = subject.keys(n_components, weights)
            if split == "test":
                log.info("%s: %.4f bits per dimension", name_of(keys), bpd)
            yield keys | {
                "split": split,
                "n_images": len(log_prob),
                "log_likelihood": mean,
                "bpd": float(bpd),
                "n_parameters": subject.n_parameters(n_components),
            }

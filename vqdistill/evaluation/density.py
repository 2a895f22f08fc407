"""Density estimation: mean log-likelihood in nats per image, and bits per dimension."""

import logging
from collections.abc import Iterable, Iterator

from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.evaluated_models import Evaluated, Subject, name_of

log = logging.getLogger(__name__)


def density_rows(
    subject: Subject, log_probs: Iterable[Evaluated], split: str, levels: int
) -> Iterator[dict[str, object]]:
    """Rows of density.csv, of every model of the subject on one split."""
    for n_components, weights, log_prob in log_probs:
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

"""Density estimation: mean log-likelihood in nats per image, and bits per dimension."""

import logging
from collections.abc import Iterable, Iterator

from vqdistill.data import bits_per_dimension
from vqdistill.evaluation.evaluated_models import Evaluated, EvaluatedModels, name_of

log = logging.getLogger(__name__)


def density_rows(
    models: EvaluatedModels, log_probs: Iterable[Evaluated], split: str, levels: int
) -> Iterator[dict[str, object]]:
    """Rows of density.csv, of all models on one split."""
    for n_components, weights, log_prob in log_probs:
        mean = log_prob.mean().item()
        bpd = float(bits_per_dimension(mean, models.circuit.n_variables, levels))
        keys = models.keys(n_components, weights)
        if split == "test":
            log.info("%s: %.4f bits per dimension", name_of(keys), bpd)
        yield keys | {
            "split": split,
            "n_images": len(log_prob),
            "log_likelihood": mean,
            "bpd": bpd,
            "n_parameters": models.n_parameters(n_components),
        }

"""Select latents of a VQ-VAE by every method that its configuration names."""

import logging

import numpy as np
import torch

from vqdistill import progress
from vqdistill.distillation import EXACT_METHOD, load_method
from vqdistill.distillation.exm import log_probs_of_all
from vqdistill.distillation.selection import check_selection, n_latents
from vqdistill.files import read_arrays, write_arrays, write_rows
from vqdistill.provenance.loading import load_prior
from vqdistill.randomness import generator
from vqdistill.settings import Distillation, grid_name
from vqdistill.steps.job import Job, compute_device, run

COSTS = ("experiment", "method", "seed", "grid", "codebook_size", "n_components", "evaluations")
COSTS += ("weighting_evaluations", "latents_enumerated")

log = logging.getLogger(__name__)


def distil(job: Job) -> None:
    """Write one npz with the latents of all methods, and what each selection cost.

    Its arrays are <method>/codes_<N> [N, H, W], <method>/classes_<N> [N] and
    <method>/log_prob_by_class_<N> [N, C], log p(z|c); and exm/log_prob [K^HW], log p(z) of all,
    with exm/log_prob_by_class [K^HW, C] where these are not too many.
    """
    device = compute_device(job.threads)
    prior = load_prior(job["prior"], device)
    training_codes = torch.from_numpy(read_arrays(job["codes"])["train"]).to(device)
    keys = {"grid": grid_name(job.settings.grid), "codebook_size": prior.codebook_size}
    latents, rows = {}, []
    for method in job.settings.methods:
        arrays, costs = select(job, method, prior, training_codes)
        latents |= {f"{method}/{name}": array for name, array in arrays.items()}
        for cost in costs:
            row = {"experiment": job.experiment, "method": method, "seed": job.seed, **keys, **cost}
            rows.append(row | {"latents_enumerated": float(n_latents(prior))})
            log.info("%s: %d components", method, cost["n_components"])
    write_arrays(job["latents"], latents)
    write_rows(job["costs"], rows, COSTS)
    job.write_record(device, model="selection", **keys)


@torch.no_grad()
def select(
    job: Job, name: str, prior, training_codes: torch.Tensor
) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The latents of one method, as arrays, and its costs."""
    if name == EXACT_METHOD:
        before = prior.evaluations
        log_prob, by_class = log_probs_of_all(prior)
        arrays = {"log_prob": log_prob.numpy()}
        if by_class is None:
            log.info("exm: knows no classes, log p(z|c) of %d latents are too many", len(log_prob))
        else:
            arrays["log_prob_by_class"] = by_class.numpy()
        return arrays, [_cost(n_latents(prior), prior.evaluations - before, 0)]
    method, sizes = load_method(name), sorted(job.settings.n_components)
    arrays, costs = {}, []
    sizes = sizes[-1:] if method.PREFIXES_ARE_MODELS else sizes
    for n in progress.track(sizes, f"{name}: latent", sizes):
        noise = generator(job.seed, f"selection {name} {n}", prior.device)
        selection = method.select(prior, n, noise, training_codes)
        check_selection(selection, prior, n, f"{name}: ")
        for kind in ("codes", "classes", "log_prob_by_class"):
            arrays[f"{kind}_{n}"] = getattr(selection, kind).cpu().numpy()
        costs.append(_cost(n, selection.evaluations, selection.weighting_evaluations))
    return arrays, costs


def _cost(n_components: int, evaluations: int, weighting_evaluations: int) -> dict:
    return {
        "n_components": n_components,
        "evaluations": evaluations,
        "weighting_evaluations": weighting_evaluations,
    }


if __name__ == "__main__":
    run(distil, Distillation, reads="prior codes", writes="latents costs record")

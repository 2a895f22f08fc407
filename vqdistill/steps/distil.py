"""Select latents of a VQ-VAE by every method that its configuration names."""

import logging
from pathlib import Path

import torch

from vqdistill.distillation import load_method
from vqdistill.distillation.base import n_latents
from vqdistill.distillation.exm import log_prior_of_all
from vqdistill.files import read_arrays, write_arrays, write_json, write_rows
from vqdistill.provenance.loading import load_prior
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, device_name, run

log = logging.getLogger(__name__)


def distil(job: Job) -> None:
    """Write one npz of latents a method, and what each selection cost in prior evaluations."""
    device = compute_device(job.threads)
    prior = load_prior(job["prior"], device)
    training_codes = torch.from_numpy(read_arrays(job["codes"])["train"]).to(device)
    rows, enumerated = [], {"latents_enumerated": float(n_latents(prior))}
    for path in job.lists["latents"]:
        for row in select(job, path, prior, training_codes):
            keys = {"experiment": job.experiment, "method": path.stem, "seed": job.seed}
            keys |= {"grid": job.settings["grid"], "codebook_size": prior.codebook_size}
            rows.append(keys | row | enumerated)
            log.info("%s: %d components", path.stem, row["n_components"])
    write_rows(job["costs"], rows)
    keys = {"grid": job.settings["grid"], "codebook_size": prior.codebook_size}
    write_json(job["record"], job.record(device_name(device), model="selection", **keys))


@torch.no_grad()
def select(job: Job, path: Path, prior, training_codes: torch.Tensor) -> list[dict]:
    """Write the latents of one method, and return its costs."""
    name, sizes = path.stem, sorted(job.settings["n_components"])
    if name == "exm":
        before = prior.evaluations
        write_arrays(path, {"log_prob": log_prior_of_all(prior).numpy()})
        return [_cost(n_latents(prior), prior.evaluations - before, 0)]
    method = load_method(name)
    arrays, costs = {}, []
    for n in sizes[-1:] if method.PREFIXES_ARE_MODELS else sizes:
        noise = generator(job.seed, f"selection {name} {n}", prior.device)
        selection = method.select(prior, n, noise, training_codes)
        arrays[f"codes_{n}"] = selection.codes.cpu().numpy()
        arrays[f"classes_{n}"] = selection.classes.cpu().numpy()
        arrays[f"log_prob_{n}"] = selection.log_prob.cpu().numpy()
        arrays[f"log_prob_by_class_{n}"] = selection.log_prob_by_class.cpu().numpy()
        costs.append(_cost(n, selection.evaluations, selection.weighting_evaluations))
    write_arrays(path, arrays)
    return costs


def _cost(n_components: int, evaluations: int, weighting_evaluations: int) -> dict:
    return {
        "n_components": n_components,
        "evaluations": evaluations,
        "weighting_evaluations": weighting_evaluations,
    }


if __name__ == "__main__":
    run(distil, files="prior codes costs record", lists="latents")

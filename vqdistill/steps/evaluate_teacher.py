"""Evaluate all that was distilled from one VQ-VAE, and the VQ-VAE itself."""

from pathlib import Path

import torch

from vqdistill import data
from vqdistill.distillation import EXACT_METHOD
from vqdistill.distillation.enumeration import index_of
from vqdistill.evaluation.evaluated_models import EvaluatedModels, distilled_models, exact_models
from vqdistill.evaluation.teacher import bound_rows, code_frequencies, teacher_row
from vqdistill.files import read_arrays, write_rows
from vqdistill.models.vqvae import VQVAE
from vqdistill.provenance.loading import (
    distilled_mixture,
    exact_mixture,
    load_classifier,
    load_prior,
    load_vqvae,
    read_latents,
)
from vqdistill.steps.evaluation import evaluate_and_write, write_record
from vqdistill.steps.job import Job, compute_device, run


def evaluate_teacher(job: Job) -> None:
    """Density and inpainting of every distilled model of one VQ-VAE, and the teacher's figures."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    vqvae, prior = load_vqvae(job["vqvae"], device), load_prior(job["prior"], device)
    keys = {"grid": job.settings["grid"], "codebook_size": job.settings["codebook_size"]}
    exact = [path for path in job.lists["latents"] if path.stem == EXACT_METHOD]
    log_prior = torch.from_numpy(read_arrays(exact[0])["log_prob"]) if exact else None
    circuits = [
        models
        for path in job.lists["latents"]
        for models in read_models(job, path, vqvae, keys, log_prior)
    ]
    classifier = load_classifier(job["classifier"], device)
    found = evaluate_and_write(job, circuits, images, classifier.predict)

    run_keys = {"experiment": job.experiment, "dataset": images.dataset}
    run_keys |= {**keys, "seed": job.seed}
    splits = [
        run_keys | {"split": split} | teacher_row(vqvae, prior, x, images.levels)
        for split, x in images.evaluated.items()
    ]
    write_rows(job["teacher"], splits)
    columns = [*run_keys, "method", "n_components", "n_images", "largest_violation", "mean_gap"]
    bounds = [run_keys | row for row in bound_rows(circuits, found.test)]
    write_rows(job["bounds"], bounds, columns)
    codes = torch.from_numpy(read_arrays(job["codes"])["train"])
    frequency = code_frequencies(codes, keys["codebook_size"]).tolist()
    ranks = [{"rank": rank, "frequency": part} for rank, part in enumerate(frequency, 1)]
    write_rows(job["codebook"], [run_keys | row for row in ranks])
    write_record(job, images, device, model="vqvae", **keys)


def read_models(
    job: Job, path: Path, vqvae: VQVAE, keys: dict, log_prior_of_all: torch.Tensor | None
) -> list[EvaluatedModels]:
    """What one file of latents gives to evaluate.

    log_prior_of_all: log p(z) [K^HW] of the teacher's exact model, if it has one; the selected
    latents then have their probabilities from there, so that sums over both can be compared.
    """
    method, sizes = path.stem, sorted(job.settings["n_components"])
    if method == EXACT_METHOD:
        return [exact_models(exact_mixture(vqvae, log_prior_of_all), **keys)]
    arrays, settings = read_arrays(path), vqvae.settings
    mixtures, log_priors = {}, {}
    for n in sizes:
        if f"codes_{n}" in arrays:
            codes, log_prior = read_latents(path, n)
            if log_prior_of_all is not None:
                index = index_of(codes, settings.codebook_size, settings.grid)
                log_prior = log_prior_of_all[index]
            mixtures[n] = distilled_mixture(vqvae, codes)
            log_priors[n] = log_prior.to(mixtures[n].log_weights.device)
    return distilled_models(method, mixtures, sizes, log_priors, **keys)


if __name__ == "__main__":
    run(
        evaluate_teacher,
        files="images vqvae prior codes classifier density inpainting pictures teacher bounds"
        " codebook record",
        lists="latents",
    )

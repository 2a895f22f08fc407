"""Evaluate all that was distilled from one VQ-VAE, and the VQ-VAE itself."""

from pathlib import Path

import torch

from vqdistill import data
from vqdistill.distillation import EXACT_METHOD
from vqdistill.distillation.enumeration import index_of
from vqdistill.evaluation.codebook import code_frequency
from vqdistill.evaluation.evaluated_models import Subject, distilled_subjects, exact_subject
from vqdistill.evaluation.teacher import partial_sum_excess, teacher_row
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
from vqdistill.steps.evaluation import evaluate, write_record
from vqdistill.steps.job import Job, compute_device, run


def evaluate_teacher(job: Job) -> None:
    """Density and inpainting of every distilled model of one VQ-VAE, and the teacher's figures."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    vqvae, prior = load_vqvae(job["vqvae"], device), load_prior(job["prior"], device)
    keys = {"grid": job.settings["grid"], "codebook_size": job.settings["codebook_size"]}
    exact = [path for path in job.lists["latents"] if path.stem == EXACT_METHOD]
    log_prior = torch.from_numpy(read_arrays(exact[0])["log_prob"]) if exact else None
    subjects = [
        subject
        for path in job.lists["latents"]
        for subject in read_subjects(job, path, vqvae, keys, log_prior)
    ]
    test = evaluate(job, subjects, images, load_classifier(job["classifier"], device))

    run_keys = {"experiment": job.experiment, "dataset": images.dataset}
    run_keys |= {**keys, "seed": job.seed}
    splits = [
        run_keys | {"split": split} | teacher_row(vqvae, prior, x, images.levels)
        for split, x in images.evaluated.items()
    ]
    write_rows(job["teacher"], splits)
    columns = [*run_keys, "method", "n_components", "n_images", "largest_excess", "mean_gap"]
    write_rows(job["bounds"], bounds(subjects, test, run_keys), columns)
    codes = torch.from_numpy(read_arrays(job["codes"])["train"])
    frequency = code_frequency(codes, keys["codebook_size"]).tolist()
    ranks = [{"rank": rank, "frequency": part} for rank, part in enumerate(frequency, 1)]
    write_rows(job["codebook"], [run_keys | row for row in ranks])
    write_record(job, images, device, model="vqvae", **keys)


def read_subjects(
    job: Job, path: Path, vqvae: VQVAE, keys: dict, log_prior_of_all: torch.Tensor | None
) -> list[Subject]:
    """What one file of latents gives to evaluate.

    log_prior_of_all: log p(z) [K^HW] of the teacher's exact model, if it has one; the selected
    latents then have their probabilities from there, so that sums over both can be compared.
    """
    method, sizes = path.stem, sorted(job.settings["n_components"])
    if method == EXACT_METHOD:
        return [exact_subject(exact_mixture(vqvae, log_prior_of_all), **keys)]
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
    return distilled_subjects(method, mixtures, sizes, log_priors, **keys)


def bounds(
    subjects: list[Subject], test: list[list[tuple[int, str, torch.Tensor]]], keys: dict
) -> list[dict]:
    """For a teacher with an exact model: what the selected latents' partial sums miss of it.

    test: log p(x) of every subject's models on the test images.
    """
    by_prior = [
        (subject, n, log_prob)
        for subject, models in zip(subjects, test, strict=True)
        for n, weights, log_prob in models
        if weights == "prior"
    ]
    exact = [log_prob for subject, _, log_prob in by_prior if subject.method == EXACT_METHOD]
    rows = []
    for subject, n, log_prob in by_prior if exact else []:
        if subject.method != EXACT_METHOD:
            excess = partial_sum_excess(exact[0], log_prob, subject.log_prior[:n])
            rows.append(keys | {"method": subject.method, "n_components": n} | excess)
    return rows


if __name__ == "__main__":
    run(
        evaluate_teacher,
        files="images vqvae prior codes classifier density inpainting pictures teacher bounds"
        " codebook record",
        lists="latents",
    )

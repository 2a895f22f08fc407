"""Evaluate all that was distilled from one VQ-VAE, and the VQ-VAE itself."""

from pathlib import Path

import torch

from vqdistill import data
from vqdistill.distillation import EXACT_METHOD
from vqdistill.distillation.enumeration import index_of
from vqdistill.distillation.mixtures import distilled_mixture, exact_mixture
from vqdistill.distillation.selection import mean_over_classes
from vqdistill.evaluation.density import QUANTILES
from vqdistill.evaluation.divergence import divergence_rows, teacher_density
from vqdistill.evaluation.evaluate import evaluate
from vqdistill.evaluation.evaluated_models import EvaluatedModels, distilled_models, exact_models
from vqdistill.evaluation.exact import Checkpoint
from vqdistill.evaluation.gain import COLUMNS, Gain, gain
from vqdistill.evaluation.teacher import bound_rows, code_frequencies, teacher_row
from vqdistill.files import read_arrays, write_rows
from vqdistill.models.vqvae import VQVAE
from vqdistill.provenance.loading import (
    Latents,
    load_classifier,
    load_prior,
    load_student,
    load_vqvae,
    read_latents,
)
from vqdistill.provenance.records import file_digest
from vqdistill.randomness import generator
from vqdistill.settings import TeacherEvaluation, grid_name
from vqdistill.steps.job import Job, compute_device, run


def evaluate_teacher(job: Job) -> None:
    """Density and inpainting of every distilled model of one VQ-VAE, and the teacher's figures."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    vqvae, prior = load_vqvae(job["vqvae"], device), load_prior(job["prior"], device)
    latents, chosen = read_latents(job["latents"]), job.settings.inpainting
    sizes = sorted(job.settings.n_components)
    circuits = [models for name in latents for models in read_models(name, latents, vqvae, sizes)]
    circuits += [read_student(path, device) for path in job.paths("students")]
    classify = load_classifier(job["classifier"], device).predict
    inputs = [path for name in job.reads for path in job.paths(name)]
    checkpoint = Checkpoint(job["checkpoint"], job.key(*map(file_digest, inputs)))
    found = evaluate(
        circuits, images, classify, chosen.n_components, chosen.scored_images, job.seed, checkpoint
    )

    K = job.settings.codebook_size
    keys = {"experiment": job.experiment, "dataset": images.dataset}
    keys |= {"grid": grid_name(job.settings.grid), "codebook_size": K, "seed": job.seed}
    splits = [
        keys | {"split": split} | teacher_row(vqvae, prior, x, images.levels)
        for split, x in images.evaluated.items()
    ]
    write_rows(job["teacher"], splits)
    columns = [*keys, "method", "n_components", "n_images", "largest_violation", "mean_gap"]
    columns += [f"gap_{quantile}" for quantile in QUANTILES]
    write_rows(job["bounds"], [keys | row for row in bound_rows(circuits, found.test)], columns)
    exact = [models.circuit for models in circuits if models.method == EXACT_METHOD]
    samples = generator(job.seed, "divergence", device)
    density = teacher_density(vqvae, prior, exact[0] if exact else None, samples)
    own = keys | {"code_version": job.code_version}
    rows = divergence_rows(circuits, density, images.levels)
    write_rows(job["divergence"], [own | row for row in rows])
    parts = gain(circuits, vqvae, images.evaluated["test"], images.levels)
    model = ["method", "size", "n_components", "weights", "n_images"]
    for name, rows, columns in zip(Gain._fields, parts, COLUMNS, strict=True):
        columns = [*own, *model, *columns]
        write_rows(job[f"gain_{name}"], [own | row for row in rows], columns)
    codes = torch.from_numpy(read_arrays(job["codes"])["train"])
    frequencies = enumerate(code_frequencies(codes, K).tolist(), 1)
    write_rows(job["codebook"], [keys | {"rank": r, "frequency": f} for r, f in frequencies])
    facts = {"model": "vqvae", "grid": keys["grid"], "codebook_size": K}
    job.write_evaluation(found, images, device, **facts)
    job["checkpoint"].unlink(missing_ok=True)


def read_student(path: Path, device: torch.device) -> EvaluatedModels:
    """A deep circuit that was learned from a teacher's samples, to evaluate."""
    circuit, own = load_student(path, device)
    keys = {"grid": grid_name(own.grid), "codebook_size": own.codebook_size, "size": own.size}
    return EvaluatedModels(own.method, circuit, **keys)


def read_models(
    method: str, latents: dict[str, Latents], vqvae: VQVAE, sizes: list[int]
) -> list[EvaluatedModels]:
    """What one method gives to evaluate, of the latents of all methods of a teacher.

    Where the teacher has an exact model, the selected latents have their log p(z) from there, so
    that sums over both can be compared.
    """
    K, grid = vqvae.codebook_size, vqvae.grid
    keys = {"grid": grid_name(grid), "codebook_size": K}
    if method == EXACT_METHOD:
        of_all = latents[method]
        log_probs = of_all.log_prob_of_all, of_all.log_prob_of_all_by_class
        return [exact_models(exact_mixture(vqvae, *log_probs), **keys)]
    mixtures, log_priors = {}, {}
    for n in sizes:
        if n in latents[method].sizes:
            codes, by_class = latents[method].first(n)
            log_prior = mean_over_classes(by_class)
            if EXACT_METHOD in latents:
                log_prior = latents[EXACT_METHOD].log_prob_of_all[index_of(codes, K, grid)]
            mixtures[n] = distilled_mixture(vqvae, codes, log_prob_by_class=by_class)
            log_priors[n] = log_prior.to(mixtures[n].log_weights.device)
    return distilled_models(method, mixtures, sizes, log_priors, **keys)


if __name__ == "__main__":
    run(
        evaluate_teacher,
        TeacherEvaluation,
        reads="images vqvae prior codes latents students* classifier",
        writes="density inpainting log_likelihoods pictures teacher bounds divergence gain_blocks"
        " gain_places gain_pixels codebook checkpoint record",
    )

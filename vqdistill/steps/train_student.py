"""Learn a circuit from samples of a teacher. Its two weight files are all that `deep` reads."""

from functools import partial
from typing import Any

import torch

from vqdistill import data
from vqdistill.baselines.quad_tree import SEEN_FIRST, begin
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.distillation import deep
from vqdistill.distillation.code_start import begin_with_codes
from vqdistill.provenance.loading import images_of, load_prior, load_vqvae
from vqdistill.provenance.records import file_digest
from vqdistill.randomness import generator
from vqdistill.settings import QuadTreeOfAnySize, Student, grid_name
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.training.em import EMTrainer
from vqdistill.training.loop import fit


def train_student(job: Job) -> None:
    """Train a circuit on samples (x, c) of its teacher, and keep its best epoch."""
    device, own = compute_device(job.threads), job.settings
    key = job.key(*map(file_digest, (job["vqvae"], job["prior"], *job.paths("images"))))
    of_samples = job["checkpoint"].with_suffix(".samples.safetensors")
    facts = {"grid": grid_name(own.grid), "codebook_size": own.codebook_size, "size": own.size}
    if own.samples:
        trainer, chosen = on_samples(job, device)
        fitted = fit(trainer, own.training, of_samples, key)
        trainer.model.load_state_dict(fitted.weights)
        facts |= chosen
    if own.images:
        trainer = on_images(job, trainer.model if own.samples else None, device)
        fitted = fit(trainer, own.images.training, job["checkpoint"], key)
    facts |= {"parameters": {"circuit": trainer.model.n_parameters}}
    job.write_model(fitted, images_of(job["vqvae"]), device, model=own.method, **facts)
    of_samples.unlink(missing_ok=True)


def on_samples(job: Job, device: torch.device) -> tuple[EMTrainer, dict[str, Any]]:
    """What learns from samples of the teacher, and how the levels that know classes were chosen."""
    own = job.settings
    vqvae, prior = load_vqvae(job["vqvae"], device), load_prior(job["prior"], device)
    draws = generator(job.seed, "samples of the teacher", device)
    sampled = partial(deep.sampled, vqvae, prior, generator=draws, pixel_noise=own.pixel_noise)
    samples = sampled(own.samples, own.training.batch_size)
    validation = next(sampled(deep.HELD_OUT, deep.HELD_OUT)(draws))
    if own.circuit == "mixture":
        noise = generator(job.seed, "training student", device)
        return deep.flat_trainer(samples, validation, noise, own), {}
    learner = partial(fresh, job, vqvae.image_shape, samples, validation, device)
    levels, tried = own.class_levels, {}
    if levels is None:
        levels, tried = deep.tried_class_levels(vqvae.image_shape, learner, own)
    facts = {"class_levels": levels, "tried_class_levels": tried}
    trainer = learner(own.model_copy(update={"class_levels": levels}))
    if own.start == "codes":
        begin_with_codes(trainer.model, vqvae, samples, draws, own)
    return trainer, facts


def on_images(job: Job, model: QuadTree | None, device: torch.device) -> EMTrainer:
    """What learns from a share of the images, from where a model is or from the start."""
    images, own = data.load(job["images"], device), job.settings.images
    n = max(1, round(own.share * len(images.train)))
    labels, size = images.train_labels[:n], own.training.batch_size
    batches = data.Batches(images.train[:n], images.levels, size, labels)
    validation = images.evaluated["validation"], images.labels["validation"]
    if model is None:
        steps = {name: getattr(own, name) for name in QuadTreeOfAnySize.model_fields}
        started = job.settings.model_copy(update=steps)
        return fresh(job, images.shape, batches, validation, device, started)
    noise = generator(job.seed, "training student on images", device)
    return deep.trainer(model, batches, validation, noise, own)


def fresh(
    job: Job,
    image_shape: tuple[int, int],
    batches: deep.TeacherSamples | data.Batches,
    validation: tuple[torch.Tensor, torch.Tensor],
    device: torch.device,
    settings: Student,
) -> deep.JointTrainer:
    """What learns from the start: from k-means of pixels, and weights that the seed fixes."""

    def build() -> QuadTree:
        return QuadTree(image_shape, settings.size, data.N_CLASSES, settings.class_levels)

    model = initialised(job.seed, "student", build).to(device)
    noise = generator(job.seed, "training student", device)
    begin(model, batches.some(SEEN_FIRST, noise), noise)
    return deep.trainer(model, batches, validation, noise, settings)


if __name__ == "__main__":
    run(
        train_student,
        Student,
        reads="vqvae prior images*",
        writes="weights history record checkpoint",
    )

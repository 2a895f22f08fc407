"""Train a VQ-VAE, and encode the images with it once."""

import torch

from vqdistill import data, settings
from vqdistill.files import write_arrays
from vqdistill.models.codebook import codebook_usage
from vqdistill.models.vqvae import VQVAE
from vqdistill.randomness import generator
from vqdistill.settings import grid_name
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.training.gradient import GradientTrainer, in_batches
from vqdistill.training.loop import fit

VALIDATION_BATCH = 500
IMAGES_AT_ONCE = 1000  # of which noise is drawn


def train_vqvae(job: Job) -> None:
    """Train a VQ-VAE, keep its best epoch, and write the codes of all images."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    model = initialised(job.seed, "vqvae", lambda: VQVAE(images.shape, job.settings)).to(device)
    noise = generator(job.seed, "training vqvae", device)
    model.before_training(images.evaluated["train"], noise)
    training = job.settings.training
    trainer = GradientTrainer(
        model,
        data.Batches(images.train, images.levels, training.batch_size),
        in_batches(VALIDATION_BATCH, images.evaluated["validation"]),
        noise,
        job.settings.learning_rate,
        job.settings.weight_decay,
    )
    fitted = fit(trainer, training, job["checkpoint"], job.key(images.checksum))
    model.load_state_dict(fitted.weights)
    model.eval().requires_grad_(False)
    codes = encode(model, images)
    write_arrays(job["codes"], {split: value.cpu().numpy() for split, value in codes.items()})
    K = job.settings.codebook_size
    facts = {"model": "vqvae", "grid": grid_name(job.settings.grid), "codebook_size": K}
    facts |= {"parameters": model.parameter_counts(), **codebook_usage(codes["train"], K)}
    job.write_model(fitted, images, device, **facts)


@torch.no_grad()
def encode(model: VQVAE, images: data.Images) -> dict[str, torch.Tensor]:
    """Codes [n, H, W] of the training images, under one fixed draw of noise, and of validation."""
    noise = generator(0, "noise of encoded images", images.train.device)
    parts = images.train.split(IMAGES_AT_ONCE)
    train = [model.encode(data.with_noise(part, images.levels, noise)) for part in parts]
    return {"train": torch.cat(train), "validation": model.encode(images.evaluated["validation"])}


if __name__ == "__main__":
    run(
        train_vqvae,
        settings.VQVAE,
        reads="images",
        writes="weights codes history record checkpoint",
    )

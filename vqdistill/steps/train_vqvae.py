"""Train a VQ-VAE, and encode the images with it once."""

import torch

from vqdistill import data
from vqdistill.files import write_arrays
from vqdistill.models.codebook import codebook_usage
from vqdistill.models.vqvae import build_vqvae
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.steps.training import train, write_model
from vqdistill.training.gradient import GradientTrainer, in_batches

VALIDATION_BATCH = 500


def train_vqvae(job: Job) -> None:
    """Train a VQ-VAE, keep its best epoch, and write the codes of all images."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    settings = job.settings
    model = initialised(job.seed, "vqvae", lambda: build_vqvae(images.shape, settings)).to(device)
    noise = generator(job.seed, "training vqvae", device)
    model.before_training(images.evaluated["train"], noise)
    trainer = GradientTrainer(
        model,
        data.Batches(images.train, images.levels, settings["training"]["batch_size"]),
        in_batches(VALIDATION_BATCH, images.evaluated["validation"]),
        noise,
        settings["learning_rate"],
        settings["weight_decay"],
    )
    fitted, earlier = train(job, trainer, images)
    model.load_state_dict(fitted.weights)
    model.eval().requires_grad_(False)
    codes = encode(model, images)
    write_arrays(job["codes"], {split: value.cpu().numpy() for split, value in codes.items()})
    facts = {"model": "vqvae", "grid": settings["grid"], "codebook_size": settings["codebook_size"]}
    facts |= {"parameters": model.parameter_counts()}
    facts |= codebook_usage(codes["train"], settings["codebook_size"])
    write_model(job, images, fitted, earlier, device, **facts)


@torch.no_grad()
def encode(model, images: data.Images) -> dict[str, torch.Tensor]:
    """Codes [n, H, W] of the training images, under one fixed draw of noise, and of validation."""
    noise = generator(0, "noise of encoded images", images.train.device)
    parts = images.train.split(data.ENCODED_AT_ONCE)
    train = [model.encode(data.with_noise(part, images.levels, noise)) for part in parts]
    return {"train": torch.cat(train), "validation": model.encode(images.evaluated["validation"])}


if __name__ == "__main__":
    run(train_vqvae, files="images checkpoint weights codes history record")

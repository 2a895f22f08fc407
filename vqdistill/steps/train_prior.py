"""Train the class-conditional PixelCNN prior of a VQ-VAE on its codes."""

import torch

from vqdistill import data
from vqdistill.files import read_arrays
from vqdistill.models.pixelcnn import build_prior
from vqdistill.provenance.records import file_digest
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.steps.training import train, write_model
from vqdistill.training.gradient import GradientTrainer, in_batches

VALIDATION_BATCH = 1000


def train_prior(job: Job) -> None:
    """Train p(z|c) on codes that are read, not encoded anew, and keep its best epoch."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    settings = job.settings
    arrays = read_arrays(job["codes"])
    codes = {split: torch.from_numpy(arrays[split]).to(device) for split in ("train", "validation")}
    model = initialised(job.seed, "prior", lambda: build_prior(images.shape, settings)).to(device)
    trainer = GradientTrainer(
        model,
        data.CodeBatches(codes["train"], images.train_labels, settings["training"]["batch_size"]),
        in_batches(VALIDATION_BATCH, codes["validation"], images.labels["validation"]),
        generator(job.seed, "training prior", device),
        settings["learning_rate"],
        settings["weight_decay"],
    )
    fitted, earlier = train(job, trainer, images, file_digest(job["codes"]))
    facts = {"model": "prior", "grid": settings["grid"], "codebook_size": settings["codebook_size"]}
    facts |= {"parameters": {"prior": sum(p.numel() for p in model.parameters())}}
    write_model(job, images, fitted, earlier, device, **facts)


if __name__ == "__main__":
    run(train_prior, files="images codes checkpoint weights history record")

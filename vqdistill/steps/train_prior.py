"""Train the class-conditional PixelCNN prior of a VQ-VAE on its codes."""

import torch

from vqdistill import data, settings
from vqdistill.files import read_arrays
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.provenance.records import file_digest
from vqdistill.randomness import generator
from vqdistill.settings import grid_name
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.training.gradient import GradientTrainer, in_batches
from vqdistill.training.loop import fit

VALIDATION_BATCH = 1000


def train_prior(job: Job) -> None:
    """Train p(z|c) on codes that are read, not encoded anew, and keep its best epoch."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    arrays = read_arrays(job["codes"])
    codes = {split: torch.from_numpy(arrays[split]).to(device) for split in ("train", "validation")}
    model = initialised(job.seed, "prior", lambda: PixelCNN(job.settings, data.N_CLASSES))
    model = model.to(device)
    training = job.settings.training
    trainer = GradientTrainer(
        model,
        data.CodeBatches(codes["train"], images.train_labels, training.batch_size),
        in_batches(VALIDATION_BATCH, codes["validation"], images.labels["validation"]),
        generator(job.seed, "training prior", device),
        job.settings.learning_rate,
        job.settings.weight_decay,
    )
    key = job.key(images.checksum, file_digest(job["codes"]))
    fitted = fit(trainer, training, job["checkpoint"], key)
    facts = {"model": "prior", "grid": grid_name(job.settings.grid)}
    facts |= {"codebook_size": job.settings.codebook_size}
    facts |= {"parameters": {"prior": sum(p.numel() for p in model.parameters())}}
    job.write_model(fitted, images, device, **facts)


if __name__ == "__main__":
    run(
        train_prior,
        settings.Prior,
        reads="images codes",
        writes="weights history record checkpoint",
    )
